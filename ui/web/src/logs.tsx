import { useEffect, useRef, useState } from 'preact/hooks';
import { cursorBefore, form, histogram, iso, type Line, lines, type LogStats, values } from './api';
import { Bars } from './bars';
import { count, hms, hmsMillis, middle } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { isEvent, LogList } from './loglist';
import { A, Empty, ErrorBox, Partial } from './parts';
import { fromText, live, namespace, param, range, set, toText, url } from './url';

const pageSize = 2000;
const levels = ['error', 'warn', 'info', 'debug'] as const;

/** withNamespace adds the page's namespace to the user's query. */
export function withNamespace(q: string, ns = namespace.value): string {
  const parts = [ns && `namespace:${ns}`, q && (ns ? `(${q})` : q)].filter(Boolean);
  return parts.join(' ');
}

/** term writes field:value so that the query language takes it as one value. */
export const term = (field: string, value: string) => `${field}:${/^[\w./-]+$/.test(value) ? value : JSON.stringify(value)}`;

function toggled(q: string, t: string): string {
  const words = q.split(/\s+/).filter(Boolean);
  const i = words.indexOf(t);
  if (i >= 0) words.splice(i, 1);
  else words.push(t);
  return words.join(' ');
}

/** plainWords of a query are what is marked in the lines. */
function highlightOf(q: string): RegExp | null {
  const words = [...q.matchAll(/"([^"]+)"|(?:^|\s)([^\s:"()-][^\s:"()]*)(?=\s|$)/g)]
    .map(m => m[1] ?? m[2]!).filter(w => w && !/^(and|or|not)$/i.test(w)).map(w => w.replace(/\*$/, ''));
  return words.length ? new RegExp(words.map(w => w.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|'), 'gi') : null;
}

export function Logs() {
  const q = param('q');
  const [draft, setDraft] = useState(q);
  useEffect(() => setDraft(q), [q]);
  const asks = [namespace.value && `namespace:${namespace.value}`, param('events') === '0' ? 'kind:log' : '', q].filter(Boolean), query = asks.join(' ');
  const span = range();
  const hist = useLoad(s => histogram({ query: asks, from: iso(span.from), to: iso(span.to), buckets: '80' }, s), [query]);
  const facets = useLoad(async s => {
    const ask = { query: asks, from: iso(span.from), to: iso(span.to), limit: '8' };
    const fields = ['level', 'namespace', 'pod', 'container', 'node'];
    const got = await Promise.all(fields.map(f => values(f, ask, s).catch(() => [])));
    return fields.map((f, i) => ({ field: f, values: got[i]!.filter(v => v.value) }));
  }, [query]);
  return (
    <div class="logs">
      <form class="qrow" role="search" onSubmit={e => { e.preventDefault(); set({ q: draft.trim() }); }}>
        <label class="qb">
          <Icon name="search" small />
          <input id="q" aria-label="Search logs" placeholder={'words  "a phrase"  level:>=warn  pod:web-1  -path:/healthz'} value={draft} spellcheck={false} autocomplete="off"
            onInput={e => setDraft(e.currentTarget.value)} />
          <span class="kbd">/</span>
        </label>
        <button class="btn p">Search</button>
      </form>
      <div class="hist"><Bars buckets={hist.data?.buckets ?? []} from={span.from} to={span.to} height={74} ticks label={`${count(hist.data?.total ?? 0)} lines over time`} /></div>
      <div class="w">
        <aside class="fac" aria-label="Fields">
          {facets.data?.map(f => f.values.length > 0 && (
            <div key={f.field}>
              <h3>{f.field}<span>{f.values.length}</span></h3>
              {f.values.map(v => {
                const t = term(f.field, v.value), on = q.split(/\s+/).includes(t);
                const share = v.count / Math.max(...f.values.map(x => x.count), 1);
                return (
                  <button key={v.value} class="fv" aria-pressed={on} onClick={() => set({ q: toggled(q, t) })} title={v.value}>
                    <i class={on ? 'bx on' : 'bx'} /><span class={f.field === 'level' ? `lv-${v.value}` : ''}>{f.field === 'pod' ? middle(v.value, 17) : v.value}</span><em>{count(v.count)}</em>
                    <u style={{ width: `${Math.max(2, share * 138)}px` }} />
                  </button>
                );
              })}
            </div>
          ))}
          {q && facets.data && <p class="mut facnote">Counted over all lines of the range, whatever words are searched for.</p>}
        </aside>
        <List asks={asks} q={q} total={hist.data?.total} error={hist.error} />
      </div>
    </div>
  );
}

function List({ asks, q, total, error }: { asks: string[]; q: string; total?: number; error?: Error }) {
  const query = asks.join(' ');
  const box = useRef<HTMLDivElement>(null);
  const list = useRef<LogList | null>(null);
  const [shown, setShown] = useState(0);
  const [trail, setTrail] = useState<LogStats>({}), [notes, setNotes] = useState<string[]>([]);
  const [problem, setProblem] = useState<Error | undefined>();
  const [busy, setBusy] = useState(true);
  const [took, setTook] = useState(0);
  const [open, setOpen] = useState<Line | null>(null);
  const [waiting, setWaiting] = useState(0);
  const [raw, setRaw] = useState(false), events = param('events') !== '0';
  const tailing = url.value.searchParams.get('live') === '1';

  useEffect(() => {
    const l = (list.current = new LogList(box.current!));
    l.onOpen = line => setOpen(line);
    l.onPinned = p => p && setWaiting(0);
    const focus = (e: KeyboardEvent) => {
      if (e.key === '/' && !/INPUT|TEXTAREA/.test((e.target as HTMLElement).tagName)) { e.preventDefault(); document.getElementById('q')?.focus(); }
      if (e.key === 'Escape') setOpen(null);
    };
    addEventListener('keydown', focus);
    return () => { removeEventListener('keydown', focus); l.destroy(); };
  }, []);
  useEffect(() => {
    list.current!.raw = raw;
    list.current!.refresh();
  }, [raw]);

  // A new query, range or namespace asks anew; the beat of the clock does not move the reader's list.
  useEffect(() => {
    const l = list.current!, stop = new AbortController(), { from, to } = range();
    l.clear();
    l.highlight = highlightOf(q);
    setShown(0); setTrail({}); setNotes([]); setProblem(undefined); setBusy(true); setOpen(null); setWaiting(0);
    const began = performance.now();
    const got: Line[] = [];
    lines({ query: asks, from: iso(from), to: iso(to), limit: String(pageSize), order: 'desc' }, batch => got.push(...batch), stop.signal)
      .then(t => setTrail(t))
      .catch((e: Error) => e.name !== 'AbortError' && setProblem(e))
      .finally(() => {
        if (stop.signal.aborted) return;
        l.prepend(got.reverse());
        setShown(l.lines.length); setTook(performance.now() - began); setBusy(false);
        if (tailing) tail(l.lines.at(-1));
      });
    let es: EventSource | undefined, buffer: Line[] = [], frame = 0;
    const tail = (newest?: Line) => { // from the newest line on, so that none falls between
      const known = new Set(l.lines.slice(-pageSize).map(x => x.id));
      const source = (es = new EventSource('/logs/api/v1/tail?' + form({ query: asks, ...(newest?.id ? { cursor: cursorBefore(newest) } : {}) })));
      const flush = () => {
        frame = 0;
        l.append(buffer);
        if (!l.pinned) setWaiting(n => n + buffer.length);
        buffer = [];
        setShown(l.lines.length);
      };
      source.onmessage = e => {
        const o = JSON.parse(e.data as string) as Line | Line[];
        for (const x of Array.isArray(o) ? o : [o]) if (x.time !== undefined && !known.has(x.id)) buffer.push(x);
        if (!frame && buffer.length) frame = requestAnimationFrame(flush);
      };
      const says = (kind: string, words: (data: any) => string) => source.addEventListener(kind, e => {
        if (e instanceof MessageEvent) setNotes(n => [...new Set([...n, words(JSON.parse(e.data as string))])].slice(-3));
      });
      says('dropped', () => 'lines came too fast for the tail, some are left out here');
      says('missing', d => `without new lines of ${(d.nodes as string[]).join(', ')}`);
      says('error', d => d.error as string);
    };
    return () => { stop.abort(); es?.close(); cancelAnimationFrame(frame); };
  }, [query, q, fromText.value, toText.value, tailing]);

  const older = async () => {
    const l = list.current!, first = l.lines[0];
    if (!first || busy) return;
    setBusy(true);
    const { from } = range();
    const got: Line[] = [];
    try {
      const next = trail.cursor;
      setTrail(await lines({ query: asks, from: iso(from), to: first.time, limit: String(pageSize), order: 'desc', ...(next ? { cursor: next } : {}) }, b => got.push(...b), new AbortController().signal));
      l.prepend(got.reverse());
      setShown(l.lines.length);
    } catch (e) {
      setProblem(e as Error);
    }
    setBusy(false);
  };

  const failed = problem ?? error;
  const more = total !== undefined && shown < total && shown >= pageSize;
  return (
    <div class="ls">
      <div class="tb">
        <span class="n" role="status">{count(Math.max(total ?? 0, shown))} lines</span>
        <span class="mut">{busy ? 'searching…' : shown < (total ?? 0) ? `newest ${count(shown)} shown, ${took.toFixed(0)} ms` : `${took.toFixed(0)} ms`}</span>
        {more && <button class="btn sm" onClick={older} disabled={busy}>Older</button>}
        <Partial {...trail} warnings={notes} />
        <span class="sp" />
        <div class="seg" role="group" aria-label="Show">
          <button class={events ? 'on' : ''} aria-pressed={events} onClick={() => set({ events: events ? '0' : null })}>Events</button>
          <button class={raw ? 'on' : ''} aria-pressed={raw} onClick={() => setRaw(!raw)}>As written</button>
        </div>
        <button class="btn q sm" aria-label="Save the lines shown" title="Save the lines shown" onClick={() => save(list.current!.lines)}><Icon name="save" small /></button>
        <button class={tailing ? 'btn sm live' : 'btn sm'} aria-pressed={tailing} disabled={!live.value} title={live.value ? '' : 'the range ends in the past'} onClick={() => set({ live: tailing ? null : '1' })}><i />Live tail</button>
      </div>
      {failed && <ErrorBox error={failed} text={q} />}
      <div class="lg" ref={box} tabIndex={0} role="log" aria-label="Log lines" />
      {!busy && !failed && shown === 0 && <Empty>No line matches{query && <> <code>{query}</code></>} between {hms(range().from)} and {hms(range().to)}. {q && <button class="btn sm" onClick={() => set({ from: 'now-24h', to: 'now' })}>Look in the last 24 hours</button>}</Empty>}
      {waiting > 0 && <button class="pill" onClick={() => { setWaiting(0); list.current!.toEnd(); }}><Icon name="down" small />{count(waiting)} new lines</button>}
      {open && <Detail line={open} close={() => setOpen(null)} q={q} />}
      <div class="keys"><kbd>j</kbd><kbd>k</kbd> move <kbd>Enter</kbd> open <kbd>]</kbd><kbd>[</kbd> next error <kbd>G</kbd> newest <kbd>/</kbd> search <kbd>t</kbd> time <kbd>z</kbd> zoom out<span class="sp">{events && `${count(list.current?.lines.filter(isEvent).length ?? 0)} events among ${count(shown)} lines`}</span></div>
    </div>
  );
}

function save(lines: Line[]) {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob(lines.map(l => JSON.stringify(l) + '\n'), { type: 'application/x-ndjson' }));
  a.download = 'lines.ndjson';
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}

/** fieldsOf reads what a JSON line holds; the server's fields win. */
function fieldsOf(l: Line): [string, string][] {
  const out: Record<string, unknown> = {};
  try {
    if (l.line.startsWith('{')) Object.assign(out, JSON.parse(l.line));
  } catch { /* not JSON after all */ }
  Object.assign(out, l.fields);
  return Object.entries(out).slice(0, 40).map(([k, v]) => [k, typeof v === 'object' ? JSON.stringify(v) : String(v)]);
}

function Detail({ line: l, close, q }: { line: Line; close: () => void; q: string }) {
  const own: [string, string | undefined][] = [['namespace', l.namespace], ['pod', l.pod], ['container', l.container], ['instance', l.instance], ['node', l.node], ['stream', l.stream], ['level', l.level], ['kind', l.kind]];
  const at = Date.parse(l.time);
  return (
    <div class="x" role="region" aria-label="Line">
      <div class="act">
        {l.pod && <A class="btn q sm" to={`/pods/${l.namespace}/${l.pod}`} q={{ at: l.time, q: null }}><Icon name="pods" small />Pod at this moment</A>}
        {l.pod && <A class="btn q sm" to="/metrics" q={{ expr: `sum by (container) (rate(container_cpu_usage_seconds_total{pod="${l.pod}"}[30s]))`, from: new Date(at - 3e5).toISOString(), to: new Date(at + 3e5).toISOString() }}><Icon name="metrics" small />Metrics ±5 min</A>}
        <A class="btn q sm" to="/logs" q={{ q: l.pod ? term('pod', l.pod) : null, from: new Date(at - 3e4).toISOString(), to: new Date(at + 3e4).toISOString(), live: null }}><Icon name="logs" small />Around this line</A>
        <span class="sp" />
        <button class="btn q sm" onClick={() => navigator.clipboard?.writeText(JSON.stringify(l))}><Icon name="link" small />Copy JSON</button>
        <button class="btn q sm" aria-label="Close" onClick={close}><Icon name="x" small /></button>
      </div>
      <pre>{hmsMillis(at)}  {l.line}</pre>
      <div class="kv">
        {[...own, ...fieldsOf(l)].filter(([, v]) => v).map(([k, v]) => (
          <div key={k}><span class="k">{k}</span><span class="v">{v}</span>
            <button aria-label={`only ${k} ${v}`} onClick={() => set({ q: toggled(q, term(k, v!)) })}>+</button>
            <button aria-label={`without ${k} ${v}`} onClick={() => set({ q: `${q} -${term(k, v!)}`.trim() })}>−</button></div>
        ))}
      </div>
    </div>
  );
}
