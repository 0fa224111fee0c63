// The history of alerts: records of kind:alert beside the lines.
import { useState } from 'preact/hooks';
import { iso, type Labels, type Line, lines } from './api';
import { hms } from './format';
import { useLoad } from './load';
import { Empty, ErrorBox, A } from './parts';
import { namespace, range } from './url';

const most = 500;

/** past reads the records of a time, newest first. query narrows them. */
export async function past(query: string, from: number, to: number, limit: number, signal: AbortSignal): Promise<Line[]> {
  const out: Line[] = [];
  await lines({ query: `kind:alert ${query}`, from: iso(from), to: iso(to), limit: String(limit), order: 'desc' }, b => out.push(...b), signal);
  return out;
}

const field = (l: Line, k: string) => String(l.fields?.[k] ?? '');
const day = (t: number) => new Date(t).toISOString().slice(5, 10);

/** Record is one line of the history. */
export function Record({ l, dated }: { l: Line; dated?: boolean }) {
  const t = Date.parse(l.time), state = field(l, 'state'), who = field(l, 'who');
  return (
    <tr class={`h-${state.replace(/ .*/, '')}`}>
      <td class="mut mono"><A to="/logs" title="Show it in Logs, with what is around it" q={{ around: l.id ?? null, scope: l.pod ? 'pod' : 'stream', q: 'kind:alert' }}>{dated && `${day(t)} `}{hms(t)}</A></td>
      <td><b class={state === 'firing' ? (field(l, 'severity') === 'critical' ? 'red' : 'amb') : state === 'resolved' ? 'grn' : 'mut'}>{state}</b></td>
      <td>{field(l, 'alertname') || '–'}</td>
      <td class="wrap">{l.pod && l.namespace ? <A to={`/pods/${l.namespace}/${l.pod}`} q={{ at: l.time }}>{l.namespace}/{l.pod}</A> : [l.namespace, l.node].filter(Boolean).join(' ')}</td>
      <td class="wrap f2" title={l.line}>{who ? `${who.replace(/^.*:/, '')}: ${field(l, 'why')}` : l.line.replace(/^.*?: /, '')}</td>
    </tr>
  );
}

export function History() {
  const { from, to } = range(), [find, setFind] = useState('');
  const got = useLoad(s => past(namespace.value ? `namespace:${namespace.value}` : '', from, to, most, s), []);
  const shown = (got.data ?? []).filter(l => l.line.toLowerCase().includes(find.toLowerCase()));
  return (
    <section class="card fill">
      <header><h2>What happened</h2><span class="mut">{got.data ? `${shown.length}${got.data.length === most ? ' newest' : ''} records in this range` : 'asking…'}</span>
        <span class="sp"><input class="find" aria-label="Find in the history" placeholder="Find" value={find} onInput={e => setFind(e.currentTarget.value)} /></span></header>
      {got.error && <ErrorBox error={got.error} />}
      <div class="scroll"><table class="hist2">
        <thead><tr><th>When</th><th>What</th><th>Alert</th><th>About</th><th /></tr></thead>
        <tbody>{shown.map(l => <Record key={l.id} l={l} dated={to - from > 432e5} />)}</tbody>
      </table>{got.data?.length === 0 && <Empty>No alert came or went in this range, and nobody silenced one.</Empty>}</div>
    </section>
  );
}

/** Recent is the history of one alert. */
export function Recent({ labels, from, to }: { labels: Labels; from: number; to: number }) {
  const about = ['namespace', 'pod', 'node'].filter(k => labels[k]).map(k => `${k}:${JSON.stringify(labels[k])}`);
  const got = useLoad(s => past([`alertname:${JSON.stringify(labels.alertname)}`, ...about].join(' '), from, to, 8, s), [JSON.stringify(labels)]);
  if (!got.data?.length) return null;
  return <section><h3>History</h3><table class="hist2 narrow">{got.data.map(l => <tr key={l.id}><td class="mut mono">{hms(Date.parse(l.time))}</td><td>{field(l, 'state')}</td><td class="wrap f2">{field(l, 'who').replace(/^.*:/, '')} {field(l, 'why')}</td></tr>)}</table></section>;
}
