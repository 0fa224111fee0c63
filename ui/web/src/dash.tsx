// Dashboards: the ConfigMaps with Grafana's label, drawn here. What a panel of
// another kind asks is drawn as lines; what asks nothing says so.
import { useEffect, useRef, useState } from 'preact/hooks';
import { dashboards, instant, labelValues, type Labels, ranged, type Series, stepFor } from './api';
import { align, Chart, type ChartData, seriesColor } from './chart';
import { unit } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { A, Empty, ErrorBox, Partial } from './parts';
import { go, href, namespace, param, range, set } from './url';

type Target = { refId: string; expr?: string; legendFormat?: string; instant?: boolean; hide?: boolean };
type Step = { color: string; value: number | null };
type Field = { unit?: string; max?: number; custom?: { stacking?: { mode: string } }; thresholds?: { steps: Step[] } };
export type PanelData = {
  id: number; type: string; title: string; description?: string; gridPos: { h: number; w: number; x: number; y: number }; targets?: Target[]; panels?: PanelData[];
  fieldConfig?: { defaults?: Field; overrides?: { matcher: { id: string; options: string }; properties: { id: string; value: string }[] }[] };
  transformations?: { id: string; options: { renameByName?: Record<string, string> } }[];
};
type Variable = { name: string; label?: string; type: string; query?: unknown; definition?: string; includeAll?: boolean; allValue?: string; options?: { value: string }[]; current?: { value?: unknown } };
export type Dashboard = { uid: string; title: string; description?: string; templating?: { list?: Variable[] }; panels?: PanelData[]; from: string };

const everything = '$__all';

/** replace writes the values of variables into a text, as Grafana does. */
export function replace(text: string, values: Record<string, string>): string {
  return text.replace(/\$\{(\w+)(?::\w+)?\}|\$(\w+)|\[\[(\w+)\]\]/g, (whole, a, b, c) => values[a ?? b ?? c] ?? whole);
}

/** legendOf a series: the format with its labels, else what tells it apart. */
export function legendOf(format: string | undefined, l: Labels): string {
  if (format && format !== '__auto') return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, k: string) => l[k] ?? '');
  return Object.entries(l).filter(([k]) => k !== '__name__').map(([k, v]) => `${k}=${v}`).join(' ') || l.__name__ || 'value';
}

export function Dashboards({ uid }: { uid: string }) {
  const [all, setAll] = useState<Dashboard[]>(), [error, setError] = useState<Error>();
  useEffect(() => void dashboards().then(setAll, setError), [uid]);
  if (error) return <ErrorBox error={error} />;
  if (!all) return <Empty>asking…</Empty>;
  const one = all.find(d => d.uid === uid);
  if (!uid) {
    return (
      <div class="dashes">
        {all.map(d => <A key={d.uid} to={`/dash/${d.uid}`} class="card dcard"><h2><Icon name="dash" />{d.title}</h2><p class="f2">{d.description}</p><small class="mut">{flat(d.panels).filter(p => p.type !== 'row').length} panels · {d.from}</small></A>)}
        {all.length === 0 && <Empty>No dashboard: the shipped ones were deleted, and none of the ConfigMaps that you may read has the label <code>grafana_dashboard</code>.</Empty>}
      </div>
    );
  }
  return one ? <Board key={uid} d={one} all={all} /> : <Empty>There is no dashboard <code>{uid}</code>. <A to="/dash">All dashboards</A></Empty>;
}

/** flat takes panels out of folded rows. */
const flat = (all: PanelData[] = []): PanelData[] => all.flatMap(p => [p, ...flat(p.panels)]);

function Board({ d, all }: { d: Dashboard; all: Dashboard[] }) {
  const variables = (d.templating?.list ?? []).filter(v => v.type !== 'datasource');
  const { from, to } = range();
  const step = stepFor(from, to), seconds = Math.round((to - from) / 1000);
  const values: Record<string, string> = { __rate_interval: `${Math.max(60, 4 * step)}s`, __interval: `${step}s`, __range: `${seconds}s`, __range_s: String(seconds) };
  for (const v of variables) {
    const first = Array.isArray(v.current?.value) ? v.current.value[0] : v.current?.value;
    const chosen = v.name === 'namespace' ? namespace.value || everything : param('var-' + v.name) || (typeof first === 'string' && first ? first : v.includeAll ? everything : '');
    values[v.name] = chosen === everything ? v.allValue || '.*' : v.includeAll ? chosen.replace(/[.*+?^${}()|[\]\\]/g, '\\\\$&') : chosen;
  }
  const picks = variables.filter(v => v.name !== 'namespace');
  return (
    <div class="board">
      <div class="tools">
        <label class="btn q nspick"><Icon name="dash" small /><select aria-label="Dashboard" value={d.uid} onChange={e => go(href(`/dash/${e.currentTarget.value}`))}>{all.map(x => <option key={x.uid} value={x.uid}>{x.title}</option>)}</select></label>
        {picks.map(v => <Pick key={v.name} v={v} values={values} />)}
        <span class="mut about">{d.description}</span>
      </div>
      <div class="grid">
        {flat(d.panels).map(p => p.type === 'row'
          ? <h2 key={p.id} class="prow">{p.title}</h2>
          : <section key={p.id} class="card panel" style={{ gridColumn: `span ${p.gridPos.w}`, height: `${p.gridPos.h * (p.gridPos.h < 6 ? 24 : 30)}px` }} aria-label={p.title}><Panel p={p} values={values} /></section>)}
      </div>
    </div>
  );
}

/** Pick chooses the value of a variable. */
function Pick({ v, values }: { v: Variable; values: Record<string, string> }) {
  const text = v.definition || (typeof v.query === 'string' ? v.query : (v.query as { query?: string } | undefined)?.query) || '';
  const m = /^label_values\((?:([\s\S]*),)?\s*(\w+)\s*\)$/.exec(text);
  const got = useLoad(async s => (m ? labelValues(m[2]!, replace(m[1]?.trim() ?? '', values), s) : (v.options ?? []).map(o => o.value).filter(o => o !== everything)), [text]);
  const chosen = param('var-' + v.name);
  return (
    <label class="btn q nspick">{v.label || v.name}
      <select aria-label={v.label || v.name} value={chosen} onChange={e => set({ ['var-' + v.name]: e.currentTarget.value || null })}>
        {(v.includeAll || !chosen) && <option value="">{v.includeAll ? 'all' : 'choose'}</option>}
        {(got.data ?? (chosen ? [chosen] : [])).map(x => <option key={x} value={x}>{x}</option>)}
      </select>
    </label>
  );
}

/** useSeen turns true when an element has come near the window. */
function useSeen() {
  const ref = useRef<HTMLDivElement>(null), [seen, setSeen] = useState(false);
  useEffect(() => {
    const o = new IntersectionObserver(e => e.some(x => x.isIntersecting) && (setSeen(true), o.disconnect()), { rootMargin: '300px' });
    o.observe(ref.current!);
    return () => o.disconnect();
  }, []);
  return { ref, seen };
}

function Panel({ p, values }: { p: PanelData; values: Record<string, string> }) {
  const { ref, seen } = useSeen();
  const asks = (p.targets ?? []).filter(t => t.expr && !t.hide).map(t => ({ ...t, expr: replace(t.expr!, values) }));
  return (
    <div class="pn" ref={ref}>
      <header title={p.description}><h3>{asks.length ? <A to="/metrics" q={{ expr: asks[0]!.expr }}>{p.title}</A> : p.title}</h3>{p.description && <span class="q" aria-hidden="true">?</span>}</header>
      {asks.length === 0 ? <Empty>This kind of panel ({p.type}) asks Prometheus nothing.</Empty>
        : !seen ? null
        : p.type === 'stat' || p.type === 'gauge' || p.type === 'singlestat' ? <Stat p={p} asks={asks} />
        : p.type === 'table' ? <Table p={p} asks={asks} />
        : <Lines p={p} asks={asks} />}
    </div>
  );
}

type Ask = Target & { expr: string };
const deps = (asks: Ask[]) => [asks.map(t => t.expr).join('\n')];

function Lines({ p, asks }: { p: PanelData; asks: Ask[] }) {
  const { from, to } = range(), f = p.fieldConfig?.defaults;
  const got = useLoad(async s => {
    const all = await Promise.all(asks.map(t => ranged(t.expr, from, to, s)));
    const series = all.flatMap((v, i) => v.series.map(x => ({ x, name: legendOf(asks[i]!.legendFormat, x.metric) })));
    return { chart: align(series.map(y => y.x), series.map(y => y.name), all[0]!.step), warnings: [...new Set(all.flatMap(v => v.warnings))], from, to };
  }, deps(asks));
  const d = got.data;
  if (got.error) return <ErrorBox error={got.error} />;
  if (!d) return null;
  if (d.chart.lines.length === 0) return <Empty>No data in this range.</Empty>;
  return <>
    <Partial warnings={d.warnings} />
    <Chart {...d.chart} from={d.from} to={d.to} height={p.gridPos.h * 30 - 66} format={unit(f?.unit)} binary={f?.unit === 'bytes'} stack={f?.custom?.stacking?.mode === 'normal'} label={p.title} />
    <Legend d={d.chart} />
  </>;
}

const Legend = ({ d }: { d: ChartData }) => (
  <div class="keys3">{d.lines.slice(0, 12).map((l, i) => <span key={i} title={l.name}><i style={{ background: `var(${seriesColor(i)})` }} />{l.name}</span>)}{d.lines.length > 12 && <span class="mut">and {d.lines.length - 12} more</span>}</div>
);

/** colour of a value by thresholds: the last step it has reached. */
function colour(v: number, steps: Step[] = []): string {
  const at = steps.filter(s => s.value === null || v >= s.value).at(-1)?.color;
  return at === 'red' ? 'red' : at === 'orange' || at === 'yellow' ? 'amb' : '';
}

function Stat({ p, asks }: { p: PanelData; asks: Ask[] }) {
  const f = p.fieldConfig?.defaults;
  const got = useLoad(async s => (await Promise.all(asks.map(t => instant(t.expr, s, range().to)))).flatMap((v, i) => v.series.map(x => ({ name: legendOf(asks[i]!.legendFormat, x.metric), v: Number(x.value?.[1]) }))), deps(asks));
  if (got.error) return <ErrorBox error={got.error} />;
  if (!got.data) return null;
  const one = got.data[0];
  if (!one) return <Empty>No data.</Empty>;
  const cls = colour(one.v, f?.thresholds?.steps);
  return <div class="stat"><b class={cls}>{unit(f?.unit)(one.v)}</b>
    {p.type === 'gauge' && f?.max ? <span class="meter" role="meter" aria-label={p.title} aria-valuemin={0} aria-valuemax={f.max} aria-valuenow={one.v}><i class={cls} style={{ width: `${Math.min(100, Math.max(0, (one.v / f.max) * 100))}%` }} /></span> : null}</div>;
}

/** Table puts the answers of its questions side by side, a row for each set of labels. */
function Table({ p, asks }: { p: PanelData; asks: Ask[] }) {
  const names = Object.assign({}, ...(p.transformations ?? []).map(t => t.options.renameByName)) as Record<string, string>;
  const columns = asks.map(t => ({ ref: t.refId, title: names['Value #' + t.refId] || t.refId }));
  const units = new Map((p.fieldConfig?.overrides ?? []).map(o => [o.matcher.options, o.properties.find(x => x.id === 'unit')?.value]));
  const got = useLoad(async s => {
    const rows = new Map<string, { labels: Labels; v: Record<string, number> }>();
    const all = await Promise.all(asks.map(t => instant(t.expr, s, range().to)));
    all.forEach((v, i) => v.series.forEach((x: Series) => {
      const { __name__: _, ...labels } = x.metric, id = JSON.stringify(Object.entries(labels).sort());
      const row = rows.get(id) ?? { labels, v: {} };
      row.v[asks[i]!.refId] = Number(x.value?.[1]);
      rows.set(id, row);
    }));
    return [...rows.values()];
  }, deps(asks));
  if (got.error) return <ErrorBox error={got.error} />;
  if (!got.data) return null;
  if (got.data.length === 0) return <Empty>No data.</Empty>;
  const labels = [...new Set(got.data.flatMap(r => Object.keys(r.labels)))];
  const text = (r: { labels: Labels }) => labels.map(l => r.labels[l] ?? '').join('\u0000');
  const rows = got.data.sort((a, b) => text(a).localeCompare(text(b)));
  return (
    <div class="scroll"><table>
      <thead><tr>{labels.map(l => <th key={l}>{l}</th>)}{columns.map(c => <th key={c.ref} class="r">{c.title}</th>)}</tr></thead>
      <tbody>{rows.slice(0, 200).map(r => <tr key={text(r)}>
        {labels.map(l => <td key={l}>{l === 'pod' && r.labels.namespace && r.labels.pod ? <A to={`/pods/${r.labels.namespace}/${r.labels.pod}`}>{r.labels.pod}</A> : r.labels[l]}</td>)}
        {columns.map(c => <td key={c.ref} class="r">{r.v[c.ref] === undefined ? <span class="mut">–</span> : unit(units.get(c.title) ?? p.fieldConfig?.defaults?.unit)(r.v[c.ref]!)}</td>)}
      </tr>)}</tbody>
    </table>{rows.length > 200 && <p class="mut more">and {rows.length - 200} more</p>}</div>
  );
}
