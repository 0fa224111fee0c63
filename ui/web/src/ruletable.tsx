// Rules, and how often one would have fired in the past.
import { useState } from 'preact/hooks';
import { type Group, ranged, type Rule } from './api';
import { hm, num, seconds } from './format';
import { Empty, ErrorBox } from './parts';
import { Lanes } from './spans';
import { now, param, set } from './url';

export type Fired = { from: number; to: number; open: boolean };

/** fired tells when an alert with one set of labels would have fired, from the
 * times at which its expression was true; all in seconds. */
export function fired(truths: number[], step: number, hold: number, keep: number, end: number): Fired[] {
  const out: Fired[] = [], gap = step * 1.5;
  let began = 0, last = -Infinity, firing = false;
  const close = (at: number) => {
    const f = out.at(-1)!, until = last + Math.max(step, keep);
    f.open = until > at;
    f.to = Math.min(until, at);
  };
  for (const at of truths) {
    if (at - last > gap) {
      if (firing && at - last > Math.max(gap, keep)) { close(at); firing = false; }
      if (!firing) began = at;
    }
    last = at;
    if (!firing && at - began >= hold) { out.push({ from: at, to: at, open: false }); firing = true; }
  }
  if (firing) close(end);
  return out;
}

type Past = { days: number; step: number; sets: { name: string; spans: Fired[] }[]; from: number; to: number };

async function backtest(expr: string, hold: number, days: number): Promise<Past> {
  const to = Math.floor(now() / 1000) * 1000, from = to - days * 864e5, step = Math.max(15, Math.floor((days * 86400) / 5000));
  const v = await ranged(expr, from, to, undefined, step);
  const sets = v.series.map(s => ({ name: Object.entries(s.metric).filter(([k]) => k !== '__name__').map(x => x[1]).join('/') || 'cluster', spans: fired((s.values ?? []).map(x => x[0]), step, hold, 0, to / 1000) })).filter(s => s.spans.length);
  return { days, step, sets, from, to };
}

/** Backtest says how often a rule would have fired. */
export function Backtest({ expr, hold }: { expr: string; hold: number }) {
  const [got, setGot] = useState<Past>(), [error, setError] = useState<Error>(), [busy, setBusy] = useState(0);
  const run = (days: number) => {
    setBusy(days); setError(undefined);
    backtest(expr, hold, days).then(setGot, setError).finally(() => setBusy(0));
  };
  const spans = got?.sets.flatMap(s => s.spans) ?? [];
  const last = Math.max(...spans.map(s => s.from)) * 1000;
  return (
    <section class="backtest"><h3>Would have fired</h3>
      <div class="seg" role="group" aria-label="Look back">{[1, 7, 30].map(d => <button key={d} type="button" disabled={busy > 0 || !expr.trim()} class={got?.days === d ? 'on' : ''} onClick={() => run(d)}>{busy === d ? '…' : d === 1 ? '1 day' : `${d} days`}</button>)}</div>
      {error && <ErrorBox error={error} />}
      {got && <p role="status"><b>{spans.length}</b> {spans.length === 1 ? 'time' : 'times'} in the last {got.days === 1 ? 'day' : `${got.days} days`}{spans.length > 0 && <>, for {got.sets.length} {got.sets.length === 1 ? 'set' : 'sets'} of labels, {seconds(spans.reduce((n, s) => n + s.to - s.from, 0))} in all, last at {new Date(last).toISOString().slice(0, 10)} {hm(last)}{spans.some(s => s.open) && ', and now'}</>}.</p>}
      {got && spans.length > 0 && <Lanes named rows={got.sets.slice(0, 8).map(s => ({ name: s.name, spans: s.spans.map(x => ({ from: x.from * 1000, to: x.to * 1000, state: 'firing' })) }))} from={got.from} to={got.to} />}
      {got && <p class="mut">Looked every {seconds(got.step)}; shorter truths between two looks are not seen.</p>}
    </section>
  );
}

const idOf = (g: Group, r: Rule) => [g.file.split('/').slice(-2).join('/'), g.name, r.name, r.query].join('|');
type Row = { g: Group; r: Rule };

export function Rules({ rows }: { rows: Row[] }) {
  const [find, setFind] = useState('');
  const shown = rows.filter(({ r }) => `${r.name} ${r.query}`.toLowerCase().includes(find.toLowerCase()));
  const chosen = param('rule');
  return (
    <section class="card fill">
      <header><h2>Rules</h2><span class="mut">{rows.filter(x => x.r.type === 'alerting').length} alerts, {rows.filter(x => x.r.type !== 'alerting').length} recorded</span><span class="sp"><input class="find" aria-label="Find a rule" placeholder="Find" value={find} onInput={e => setFind(e.currentTarget.value)} /></span></header>
      <div class="scroll"><table class="fixed">
        <colgroup><col style={{ width: '30%' }} /><col /><col style={{ width: '84px' }} /><col style={{ width: '170px' }} /></colgroup>
        <thead><tr><th>Rule</th><th>Expression</th><th>Health</th><th>From</th></tr></thead>
        <tbody>{shown.map(({ g, r }) => <tr key={idOf(g, r)} class={chosen === idOf(g, r) ? 'on' : ''}><td><button class="link" onClick={() => set({ rule: idOf(g, r) }, true)}><b>{r.name}</b></button></td><td class="mono expr" title={r.query}>{r.query}</td><td class={r.health === 'err' ? 'red' : 'mut'} title={r.lastError}>{r.health === 'err' ? r.lastError : r.health}</td><td class="mut">{g.file.split('/').slice(-2).join('/')}</td></tr>)}</tbody>
      </table>{rows.length > 0 && shown.length === 0 && <Empty>No rule has that in its name or expression.</Empty>}</div>
    </section>
  );
}

/** RuleSide shows one rule, or takes an expression that is no rule yet. */
export function RuleSide({ rows }: { rows: Row[] }) {
  const [expr, setExpr] = useState(''), [hold, setHold] = useState('0');
  const one = rows.find(({ g, r }) => idOf(g, r) === param('rule'));
  if (!one) {
    return (
      <aside class="side" aria-label="Try an expression">
        <header><h2>Try an expression</h2></header>
        <p class="f2">An alert fires for each series that this PromQL returns. Choose a rule on the left, or write one and see how often it would have fired.</p>
        <div class="act"><textarea class="find wide mono" rows={4} aria-label="Expression" placeholder="sum by (namespace, pod) (rate(http_requests_total{code=~&quot;5..&quot;}[5m])) > 1" value={expr} onInput={e => setExpr(e.currentTarget.value)} />
          <label class="mut">true for at least <input class="find short" type="number" min="0" aria-label="Seconds" value={hold} onInput={e => setHold(e.currentTarget.value)} /> s</label></div>
        <Backtest key={expr + hold} expr={expr} hold={Number(hold) || 0} />
      </aside>
    );
  }
  const { g, r } = one;
  return (
    <aside class="side" aria-label="Rule">
      <header><h2>{r.name}</h2><button class="ib sp" aria-label="Close" onClick={() => set({ rule: null }, true)}>✕</button></header>
      {r.annotations?.summary && <p class="f2">{r.annotations.summary}</p>}
      <pre class="code">{r.query}{r.duration ? `\nfor ${r.duration} s` : ''}</pre>
      <div class="chips">{Object.entries(r.labels ?? {}).map(([k, v]) => <span key={k} class="chip">{k}=<b>{v}</b></span>)}</div>
      {r.annotations?.description && <section><h3>Description</h3><p class="f2">{r.annotations.description}</p></section>}
      {r.type === 'alerting' && <Backtest key={r.query} expr={r.query} hold={r.duration ?? 0} />}
      <section><h3>Where it comes from</h3><p class="f2 wrapall">{g.file}, group {g.name}, every {num(g.interval)} s</p></section>
    </aside>
  );
}
