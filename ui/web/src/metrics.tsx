import { useEffect, useRef, useState } from 'preact/hooks';
import { histogram, iso, type Labels, metricNames, ranged, stepFor } from './api';
import { Bars } from './bars';
import { align, Chart, seriesColor, Spark } from './chart';
import { num } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { withNamespace } from './logquery';
import { A, Card, Empty, ErrorBox, Partial } from './parts';
import { ahead, change, nowAndThen, percent, shifted, spans } from './past';
import { alertHistory, Lanes } from './spans';
import { namespace, param, range, set } from './url';

/** nameOf writes what tells series of one answer apart. */
export function namesOf(all: Labels[]): string[] {
  const keys = new Set(all.flatMap(l => Object.keys(l)));
  const telling = [...keys].filter(k => new Set(all.map(l => l[k])).size > 1);
  return all.map(l => telling.map(k => (telling.length === 1 ? l[k] ?? '' : `${k}=${l[k] ?? ''}`)).filter(Boolean).join(' ') || l.__name__ || 'value');
}

const groups: [string, RegExp][] = [
  ['Containers', /^container_/], ['Nodes', /^(node|machine)_/], ['Objects', /^kube_/], ['Alerts', /^ALERTS/], ['perch', /^perch_/], ['Go runtime', /^(go|process)_/], ['Scraping', /^(up$|scrape_|promhttp_)/],
  ['Control plane', /./],
];

/** fewLines are drawn beside what they were; of more, the table tells. */
const fewLines = 4;
const idOf = (l: Labels) => JSON.stringify(Object.entries(l).sort());

export function Metrics() {
  const names = useLoad(async () => ({ all: await metricNames(), apps: new Set(await metricNames('{job=~".+/.+"}')) }), []);
  const [find, setFind] = useState('');
  const ns = namespace.value;
  const expr = param('expr') || `sum by (pod) (rate(container_cpu_usage_seconds_total{container!=""${ns ? `,namespace="${ns}"` : ''}}[30s]))`;
  const listed = (names.data?.all ?? []).filter(n => n.includes(find.toLowerCase()));
  const grouped = new Map<string, string[]>();
  for (const n of listed) {
    const known = groups.find(([, re]) => re.test(n))![0];
    const g = names.data!.apps.has(n) && known === 'Control plane' ? 'Applications' : known;
    grouped.set(g, [...(grouped.get(g) ?? []), n]);
  }
  const pick = (n: string) => set({ expr: /_(total|count|sum|bucket)$/.test(n) ? `sum by (pod) (rate(${n}[1m]))` : n });
  return (
    <div class="metrics">
      <aside class="tree" aria-label="Metric names">
        <label class="find"><Icon name="search" small /><input aria-label="Find a metric" placeholder="Find a metric" value={find} onInput={e => setFind(e.currentTarget.value)} /></label>
        <div class="scroll">
          {['Applications', ...groups.map(g => g[0])].filter(g => grouped.has(g)).map(g => (
            <details key={g} open={find !== '' || g === 'Applications' || g === 'Containers'}>
              <summary>{g}<em>{grouped.get(g)!.length}</em></summary>
              {grouped.get(g)!.map(n => <button key={n} class={expr.includes(n) ? 'on' : ''} title={n} onClick={() => pick(n)}>{n}</button>)}
            </details>
          ))}
          {names.error && <ErrorBox error={names.error} />}
          {names.data && <p class="mut facnote">{names.data.all.length} metrics, from <A to="/targets" class="acc">these targets</A></p>}
        </div>
      </aside>
      <Panel expr={expr} />
    </div>
  );
}

function Panel({ expr }: { expr: string }) {
  const { from, to } = range();
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<{ destroy(): void; set(t: string): void } | null>(null);
  useEffect(() => {
    let gone = false;
    void import('./editor').then(m => {
      if (gone) return;
      const v = m.mountEditor(box.current!, expr, t => set({ expr: t.trim() }));
      view.current = { destroy: () => v.destroy(), set: t => v.state.doc.toString() !== t && v.dispatch({ changes: { from: 0, to: v.state.doc.length, insert: t } }) };
    });
    return () => { gone = true; view.current?.destroy(); };
  }, []);
  useEffect(() => view.current?.set(expr), [expr]);
  const title = /[a-zA-Z_:][\w:]*(?=\s*[{\[])/.exec(expr)?.[0] ?? expr, by = /by\s*\(([^)]*)\)/.exec(expr)?.[1];
  const got = useLoad(async s => {
    const began = performance.now();
    const v = await ranged(expr, from, to, s);
    const names = namesOf(v.series.map(x => x.metric));
    const last = (x: { values?: [number, string][] }) => Number(x.values?.at(-1)?.[1] ?? 0);
    const order = v.series.map((_, i) => i).sort((a, b) => last(v.series[b]!) - last(v.series[a]!)).slice(0, 40);
    const drawn = order.map(i => v.series[i]!);
    return { chart: align(drawn, order.map(i => names[i]!), v.step), of: drawn.map(x => idOf(x.metric)), step: v.step, total: v.series.length, ms: performance.now() - began, warnings: v.warnings, from, to };
  }, [expr]);
  const beside = useLoad(async s => {
    const [errors, alerts] = await Promise.all([
      histogram({ query: withNamespace('level:>=error'), from: iso(from), to: iso(to), buckets: '120' }, s),
      alertHistory(`severity!="none"${namespace.value ? `,namespace="${namespace.value}"` : ''}`, from, to, s),
    ]);
    return { errors, alerts, from, to };
  }, []);
  const cmp = spans[param('cmp')];
  const past = useLoad(async s => (cmp ? { ...(await ranged(expr, from - cmp.ms, to - cmp.ms + ahead, s, stepFor(from, to))), by: cmp.ms } : null), [expr, param('cmp')], nowAndThen);
  const d = got.data, p = past.data;
  const then = d && p && cmp && p.by === cmp.ms && p.step === d.step ? d.of.map(id => shifted(d.chart.times, p.series.find(x => idOf(x.metric) === id)?.values ?? [], p.step, p.by)) : null;
  const few = then && then.length <= fewLines;
  return (
    <div class="mp">
      <div class="pq" ref={box}><span class="qn">A</span></div>
      <div class="tools">
        <span class="mut">{d ? `${d.total} series in ${d.ms.toFixed(0)} ms${d.total > 40 ? ', 40 largest shown' : ''}` : 'asking…'}</span>
        <Partial warnings={d?.warnings} />
        <span class="sp" />
        <div class="seg" role="group" aria-label="Compare">{Object.entries(spans).map(([k, x]) => <button key={k} class={param('cmp') === k ? 'on' : ''} aria-pressed={param('cmp') === k} onClick={() => set({ cmp: param('cmp') === k ? null : k })}>vs. {x.short}</button>)}</div>
      </div>
      {got.error && <ErrorBox error={got.error} />}
      <Card title={title} sub={[/\b(rate|increase)\(/.exec(expr)?.[1] && 'per second', by && `by ${by}`].filter(Boolean).join(', ')} class="grow" side={cmp && <span class="mut vs">{past.error ? past.error.message : !then ? '' : then.every(l => l.every(v => v === null)) ? `nothing was recorded ${cmp.words}` : few ? `dashed: ${cmp.words}` : `${cmp.words}: in the table`}</span>}>
        {d && d.total === 0 && <Empty>No series match this expression in this range.</Empty>}
        {d && d.total > 0 && <Chart {...d.chart} lines={few ? [...d.chart.lines, ...then.map((values, i) => ({ name: `${d.chart.lines[i]!.name}, ${cmp!.words}`, values, color: seriesColor(i), dash: true }))] : d.chart.lines} from={d.from} to={d.to} height={300} label={`Chart of ${expr}`} />}
      </Card>
      <Card title="On the same time axis" sub="error lines and alerts" class="beside">
        {beside.error && <ErrorBox error={beside.error} />}
        {beside.data && <div class="lanepad"><Bars buckets={beside.data.errors.buckets} from={beside.data.from} to={beside.data.to} height={46} label="Error lines over time" />
          <Lanes rows={beside.data.alerts.slice(0, 5).map(a => ({ name: a.name, title: a.labels.pod, spans: a.spans }))} from={beside.data.from} to={beside.data.to} /></div>}
      </Card>
      {d && d.total > 0 && (
        <Card title="Series" class="scrolly">
          <table>
            <thead><tr><th>Series</th><th class="r">Last</th><th class="r">Avg</th><th class="r">Max</th>{cmp && <th class="r">vs. {cmp.short}</th>}<th class="r">Range</th></tr></thead>
            <tbody>
              {d.chart.lines.map((l, i) => {
                const v = l.values.filter((x): x is number => x !== null), grew = then && change(l.values, then[i]!);
                return (
                  <tr key={l.name}>
                    <td><i class="sw" style={{ background: `var(${seriesColor(i)})` }} /><span class="mono">{l.name}</span></td>
                    <td class="r"><b>{num(v.at(-1) ?? NaN)}</b></td><td class="r mut">{num(v.reduce((a, b) => a + b, 0) / v.length)}</td><td class="r mut">{num(Math.max(...v))}</td>{cmp && <td class={grew != null && Math.abs(grew) > 50 ? 'r amb' : 'r mut'}>{grew == null ? '–' : percent(grew)}</td>}
                    <td class="r"><Spark values={v} color={seriesColor(i)} /></td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </Card>
      )}
    </div>
  );
}
