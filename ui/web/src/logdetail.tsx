// One line: its fields, and the ways on from it.
import type { ComponentChildren } from 'preact';
import { iso, type Line } from './api';
import { hmsMillis } from './format';
import { Icon } from './icons';
import { none } from './logcontext';
import { term, toggled } from './logquery';
import { A } from './parts';
import { href, param, params, range, set } from './url';

/** fieldsOf reads what a JSON line holds; the server's fields win. */
function fieldsOf(l: Line): [string, string][] {
  const out: Record<string, unknown> = {};
  try {
    if (l.line.startsWith('{')) Object.assign(out, JSON.parse(l.line));
  } catch { /* not JSON after all */ }
  Object.assign(out, l.fields);
  return Object.entries(out).slice(0, 40).map(([k, v]) => [k, typeof v === 'object' ? JSON.stringify(v) : String(v)]);
}

/** linkTo a line as the page is now, with times that do not move on. */
function linkTo(l: Line): string {
  const { from, to } = range();
  return location.origin + href('/logs', { ...Object.fromEntries(['q', 'events', 'around', 'scope', 'span'].map(k => [k, param(k)])), pattern: params('pattern'), without: params('without'), from: iso(from), to: iso(to), line: l.id ?? null });
}

function Copy({ text, children }: { text: () => string; children: ComponentChildren }) {
  return <button class="btn q sm" onClick={() => void navigator.clipboard?.writeText(text())}>{children}</button>;
}

export function Detail({ line: l, close, context }: { line: Line; close: () => void; context: () => void }) {
  const q = param('q'), at = Date.parse(l.time);
  const own: [string, string | undefined][] = [['namespace', l.namespace], ['pod', l.pod], ['container', l.container], ['instance', l.instance], ['node', l.node], ['stream', l.stream], ['level', l.level], ['kind', l.kind]];
  const only = (t: string) => set({ q: t, ...none });
  return (
    <div class="x" role="region" aria-label="Line">
      <div class="act">
        {l.pod && <A class="btn q sm" to={`/pods/${l.namespace}/${l.pod}`} q={{ at: l.time, q: null }}><Icon name="pods" small />Pod at this moment</A>}
        {l.id && <button class="btn q sm" onClick={context}><Icon name="logs" small />Context</button>}
        {l.pod && <A class="btn q sm" to="/metrics" q={{ expr: `sum by (container) (rate(container_cpu_usage_seconds_total{pod="${l.pod}"}[30s]))`, from: iso(at - 3e5), to: iso(at + 3e5) }}><Icon name="metrics" small />Metrics ±5 min</A>}
        <span class="sp" />
        {l.id && <Copy text={() => linkTo(l)}><Icon name="link" small />Copy link</Copy>}
        <Copy text={() => JSON.stringify(l)}><Icon name="save" small />Copy JSON</Copy>
        <button class="btn q sm" aria-label="Close" onClick={close}><Icon name="x" small /></button>
      </div>
      <pre>{hmsMillis(at)}  {l.line}</pre>
      <div class="kv">
        {[...own, ...fieldsOf(l)].filter(([, v]) => v).map(([k, v]) => (
          <div key={k}><span class="k">{k}</span><span class="v">{v}</span>
            <button aria-label={`only ${k} ${v}`} onClick={() => only(toggled(q, term(k, v!)))}>+</button>
            <button aria-label={`without ${k} ${v}`} onClick={() => only(`${q} -${term(k, v!)}`.trim())}>−</button></div>
        ))}
      </div>
    </div>
  );
}
