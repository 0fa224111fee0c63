// When alerts were pending and firing: read from the series that the rules write.
import { type Labels, ranged, stepFor } from './api';
import { hms } from './format';

export type Span = { from: number; to: number; state: string }; // pending, warning, firing
export type AlertHistory = { name: string; labels: Labels; spans: Span[] };

const key = (l: Labels) => Object.entries(l).filter(([k]) => k !== 'alertstate' && k !== '__name__').sort().map(([k, v]) => `${k}=${v}`).join(',');

/** alertHistory of all alerts that match; sel is the inside of the braces. */
export async function alertHistory(sel: string, from: number, to: number, signal?: AbortSignal): Promise<AlertHistory[]> {
  // Over a day the steps are long: each then tells whether there was an alert
  // at any time since the one before, so that short ones are not missed.
  const coarse = stepFor(from, to), wide = coarse > 60;
  const got = wide ? await ranged(`max_over_time(ALERTS{${sel}}[${coarse + 2}s])`, from, to + coarse * 1000, signal) : await ranged(`ALERTS{${sel}}`, from, to, signal);
  const step = got.step * 1000;
  const by = new Map<string, AlertHistory>();
  for (const s of got.series) {
    const id = key(s.metric);
    const state = s.metric.alertstate === 'firing' && s.metric.severity === 'warning' ? 'warning' : s.metric.alertstate ?? '';
    const h = by.get(id) ?? { name: s.metric.alertname ?? '', labels: s.metric, spans: [] };
    by.set(id, h);
    let open: Span | undefined;
    for (const [t] of s.values ?? []) {
      const end = Math.min(t * 1000, to);
      if (open && t * 1000 - open.to <= step * 1.5) open.to = end;
      else h.spans.push((open = wide ? { from: t * 1000 - step, to: end, state } : { from: t * 1000, to: t * 1000 + step / 2, state }));
    }
  }
  return [...by.values()];
}

/** label stands before the bar, else behind it, else on it. */
const label = (name: string, from: number, to: number) =>
  from > 30 ? <em style={{ right: `${100 - from}%` }}>{name}</em> : to < 70 ? <em style={{ left: `${to}%` }}>{name}</em> : <em class="on" style={{ left: `${from}%` }}>{name}</em>;

/** Lanes draws one row for each alert on the page's time axis. */
export function Lanes({ rows, from, to, named }: { rows: { name: string; title?: string; dim?: boolean; spans: Span[] }[]; from: number; to: number; named?: boolean }) {
  const pos = (t: number) => Math.max(0, Math.min(100, ((t - from) / (to - from)) * 100));
  return (
    <div class="lanerows">
      {rows.map(r => (
        <div class={named ? 'lanerow named' : 'lanerow'} key={r.name + (r.title ?? '')} title={r.title}>
          {named && <span class="lanename">{r.name}</span>}
          <div class="lanebar">
            {r.spans.map((s, i) => <i key={i} class={`al ${r.dim ? 'dim' : s.state}`} style={{ left: `${pos(s.from)}%`, width: `max(3px, ${pos(s.to) - pos(s.from)}%)` }} title={`${r.name} ${s.state} ${hms(s.from)} – ${hms(s.to)}`} />)}
            {!named && r.spans.length > 0 && label(r.name, pos(Math.min(...r.spans.map(s => s.from))), pos(Math.max(...r.spans.map(s => s.to))))}
          </div>
        </div>
      ))}
    </div>
  );
}
