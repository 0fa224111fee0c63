import { bare } from './alertdetail';
import { type Histogram, histogram, instant, iso, type Obj, ranged, rules, stepFor, values, watched } from './api';
import { Bars, errorsOf } from './bars';
import { align, Chart, Spark } from './chart';
import { ago, bytes, cores, count, hm, middle, num } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { term, withNamespace } from './logquery';
import { condition, eventTime, limitOf, podState, quantity } from './objects';
import { A, Card, Empty, ErrorBox } from './parts';
import { ahead, change, nowAndThen, percent, shifted } from './past';
import { loud } from './silences';
import { namespace, now, param, range, set } from './url';

export function Overview() {
  const pods = watched('api/v1/pods').value, nodes = watched('api/v1/nodes').value, events = watched('api/v1/events').value;
  return (
    <div class="overview">
      <div class="r1"><Attention pods={pods} /><Map pods={pods} nodes={nodes} /></div>
      <div class="r2"><Figures nodes={nodes} /></div>
      <div class="r3"><Changes /><Warnings events={events} /><Loud /></div>
    </div>
  );
}

type Item = { tone: 'red' | 'amb'; title: string; sub: string; when: string; what: string; to: string; label: string; spark?: Curve };
type Curve = { values: number[]; limit?: number };

function Attention({ pods }: { pods: Obj[] | null }) {
  const at = now(), ns = namespace.value;
  const got = useLoad(loud, []);
  const all = (got.data?.firing ?? []).filter(x => !ns || !x.alert.labels.namespace || x.alert.labels.namespace === ns), firing = all.filter(x => !x.by), hidden = all.length - firing.length;
  // What each alert's expression was over the last hour, beside its threshold.
  const curves = useLoad(async s => {
    const at = now(), seen = (await rules()).flatMap(g => g.rules.filter(r => (r.alerts ?? []).some(a => a.state === 'firing' && a.labels.severity !== 'none')));
    const got = await Promise.all(seen.slice(0, 12).map(async r => {
      const { expr, limit } = bare(r.query);
      return { name: r.name, limit, series: (await ranged(expr, at - 36e5, at, s).catch(() => null))?.series ?? [] };
    }));
    return got;
  }, []);
  const curveOf = (name: string, labels: Record<string, string>): Curve | undefined => {
    const c = curves.data?.find(x => x.name === name);
    const s = c?.series.find(x => Object.entries(x.metric).every(([k, v]) => k === '__name__' || labels[k] === undefined || labels[k] === v));
    return s && { values: (s.values ?? []).map(v => Number(v[1])), limit: c!.limit || undefined };
  };
  const items: Item[] = firing.map(({ rule: r, alert: a }) => ({
    tone: a.labels.severity === 'warning' ? 'amb' : 'red', title: a.annotations.summary || r.name,
    sub: a.annotations.description || [a.labels.namespace, a.labels.pod ?? a.labels.node].filter(Boolean).join('/') || r.name, when: ago(Date.parse(a.activeAt), at), what: r.name, spark: curveOf(r.name, a.labels),
    to: a.labels.pod ? `/pods/${a.labels.namespace}/${a.labels.pod}` : '/alerts', label: a.labels.pod ? 'Story' : 'Open',
  }));
  const named = new Set(all.map(x => `${x.alert.labels.namespace}/${x.alert.labels.pod}`));
  for (const p of pods ?? []) {
    const s = podState(p), id = `${p.metadata.namespace}/${p.metadata.name}`;
    if ((ns && p.metadata.namespace !== ns) || named.has(id)) continue;
    const unscheduled = condition(p, 'PodScheduled')?.status === 'False';
    if (s.tone !== 'bad' && !unscheduled) continue;
    const c = (p.status?.containerStatuses ?? []).find((c: any) => c.state?.waiting?.message || c.lastState?.terminated);
    items.push({
      tone: unscheduled ? 'amb' : 'red', title: unscheduled ? `${middle(p.metadata.name, 40)} cannot be scheduled` : `${middle(p.metadata.name, 40)}: ${s.word}${s.restarts ? `, ${s.restarts} restarts` : ''}`,
      sub: unscheduled ? condition(p, 'PodScheduled').message : c?.state?.waiting?.message ?? `last exit ${c?.lastState?.terminated?.exitCode ?? '–'} ${c?.lastState?.terminated?.reason ?? ''}`,
      when: ago(s.lastRestart ?? Date.parse(p.metadata.creationTimestamp), at), what: 'Pod', to: `/pods/${p.metadata.namespace}/${p.metadata.name}`, label: unscheduled ? 'Why' : 'Story',
    });
  }
  items.sort((a, b) => Number(b.tone === 'red') - Number(a.tone === 'red')); // else in the order of the rules
  const quiet = (pods ?? []).filter(p => ['ok', 'done'].includes(podState(p).tone)).length;
  return (
    <Card title="Needs attention" sub={pods ? `${items.length ? `${items.length} now. ` : ''}${quiet} of ${pods.length} pods are quiet.` : 'asking…'} class="attn" side={hidden > 0 && <A to="/alerts" class="mut" title="hidden by silences, or taken on">{hidden} silenced</A>}>
      {got.error && <ErrorBox error={got.error} />}
      <div class="scroll">
        {items.slice(0, 20).map(i => (
          <div class="pb" key={i.title + i.sub}>
            <i class={`bar ${i.tone}`} /><div><b title={i.title}>{i.title}</b><small title={i.sub}>{i.sub}</small></div>
            {i.spark ? <Spark values={i.spark.values} limit={i.spark.limit} color={i.tone === 'red' ? '--red' : '--amb'} /> : <span />}
            <div class="when"><span class="f2">{i.when}</span><br /><span class="mut">{i.what}</span></div>
            <A class="btn sm go" to={i.to}>{i.label}<Icon name="right" small /></A>
          </div>
        ))}
        {pods && items.length === 0 && <Empty>Nothing needs you. Alerts, failing and unschedulable pods appear here.</Empty>}
      </div>
    </Card>
  );
}

const ramp = (v: number) => (v >= 0.97 ? 6 : v >= 0.88 ? 5 : v >= 0.75 ? 4 : v >= 0.55 ? 3 : v >= 0.3 ? 2 : 1);

const colourings = {
  memory: { name: 'Memory', of: 'share of memory limit in use', ends: ['0', '100 % of limit'] }, cpu: { name: 'CPU', of: 'share of CPU limit in use', ends: ['0', '100 % of limit'] },
  restarts: { name: 'Restarts', of: 'restarts', ends: ['0', '6 and more'] }, age: { name: 'Age', of: 'age', ends: ['days', 'under 10 min'] },
} as const;
type Colouring = keyof typeof colourings;
const steps = (v: number, at: number[]) => 1 + at.filter(x => v >= x).length;

function Map({ pods, nodes }: { pods: Obj[] | null; nodes: Obj[] | null }) {
  const use = useLoad(async s => {
    const [mem, cpu, node] = await Promise.all([
      instant('sum by (namespace, pod) (container_memory_working_set_bytes{job="kubelet", container!=""})', s),
      instant('sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{job="kubelet", container!=""}[30s]))', s),
      instant('label_replace(1 - avg by (node) (rate(node_cpu_seconds_total{job="node-exporter", namespace="", mode="idle"}[30s])), "what", "cpu", "", "") or label_replace(1 - sum by (node) (node_memory_MemAvailable_bytes{job="node-exporter", namespace=""}) / sum by (node) (node_memory_MemTotal_bytes{job="node-exporter", namespace=""}), "what", "memory", "", "")', s),
    ]);
    const of = (x: { value?: [number, string] }) => Number(x.value?.[1] ?? 0);
    return {
      memory: new globalThis.Map(mem.series.map(x => [`${x.metric.namespace}/${x.metric.pod}`, of(x)])),
      cpu: new globalThis.Map(cpu.series.map(x => [`${x.metric.namespace}/${x.metric.pod}`, of(x)])),
      node: new globalThis.Map(node.series.map(x => [`${x.metric.node}/${x.metric.what}`, of(x)])),
    };
  }, []);
  const by: Colouring = param('map') in colourings ? (param('map') as Colouring) : 'memory', how = colourings[by], at = now();
  const tell = (p: Obj): [number, string] => {
    const id = `${p.metadata.namespace}/${p.metadata.name}`, s = podState(p);
    if (by === 'restarts') return [steps(s.restarts, [1, 2, 3, 4, 6]), `${s.restarts} restarts`];
    if (by === 'age') return [steps(-(at - Date.parse(p.metadata.creationTimestamp)) / 6e4, [-1440, -60, -10]), ago(Date.parse(p.metadata.creationTimestamp), at)];
    const limit = limitOf(p, by), v = use.data?.[by].get(id), words = by === 'cpu' ? cores : bytes;
    return [s.tone === 'bad' ? 6 : v === undefined || !limit ? 0 : ramp(v / limit), v === undefined ? '' : `${words(v)}${limit ? ` of ${words(limit)}` : ', no limit'}`];
  };
  return (
    <Card title="Cluster map" class="map" side={<div class="seg" role="group" aria-label="Colour of pods">{(Object.keys(colourings) as Colouring[]).map(k => <button key={k} class={by === k ? 'on' : ''} aria-pressed={by === k} onClick={() => set({ map: k === 'memory' ? null : k }, true)}>{colourings[k].name}</button>)}</div>}>
      <div class="scroll">
        <div class="nm head mut"><span>Node</span><span><span class="blu">CPU</span> <span class="vio">Memory</span></span><span>Pods, by {how.of}</span></div>
        {(nodes ?? []).map(n => {
          const own = (pods ?? []).filter(p => p.spec?.nodeName === n.metadata.name && podState(p).tone !== 'done');
          const ready = condition(n, 'Ready')?.status === 'True';
          return (
            <div class="nm" key={n.metadata.uid}>
              <div><A to="/nodes"><b>{n.metadata.name}</b></A>{!ready && <span class="red"> not ready</span>}<br /><span class="mut">{own.length} pods</span></div>
              <div class="cap">{(['cpu', 'memory'] as const).map(w => { const v = use.data?.node.get(`${n.metadata.name}/${w}`) ?? 0; return <div key={w} title={`${w} ${(v * 100).toFixed(0)} %`}><i class={v > 0.85 ? 'amb' : w} style={{ width: `${v * 100}%` }} /></div>; })}</div>
              <div class="sq">
                {own.map(p => {
                  const id = `${p.metadata.namespace}/${p.metadata.name}`, [v, words] = tell(p);
                  return <A key={p.metadata.uid} to={`/pods/${id}`} class={`cell v${v}`} title={`${id}: ${podState(p).word}${words && `, ${words}`}`}>{''}</A>;
                })}
              </div>
            </div>
          );
        })}
      </div>
      <footer class="legend"><i class="cell v1" /><i class="cell v2" /><i class="cell v3" /><i class="cell v4" /><i class="cell v5" /><i class="cell v6" /><span class="mut">{how.ends[0]} → {how.ends[1]}</span>{(by === 'memory' || by === 'cpu') && <><i class="cell v0" /><span class="mut">no limit</span></>}</footer>
    </Card>
  );
}

function Figures({ nodes }: { nodes: Obj[] | null }) {
  const { from, to } = range(), ns = namespace.value;
  const m = ns ? `,namespace="${ns}"` : '';
  const charts: [string, string, string, (v: number) => string, (n: Obj[]) => string][] = [
    ['CPU', '--blu', `sum(rate(container_cpu_usage_seconds_total{job="kubelet", container!=""${m}}[30s]))`, v => num(v), n => `of ${n.reduce((a, x) => a + Number(x.status?.capacity?.cpu ?? 0), 0)} cores`],
    ['Memory', '--vio', `sum(container_memory_working_set_bytes{job="kubelet", container!=""${m}})`, bytes, n => `of ${bytes(n.reduce((a, x) => a + (quantity(x.status?.capacity?.memory) ?? 0), 0))}`],
    ns
      ? ['Network', '--acc', `sum(rate(container_network_receive_bytes_total{job="kubelet", pod!=""${m}}[1m])) + sum(rate(container_network_transmit_bytes_total{job="kubelet", pod!=""${m}}[1m]))`, v => bytes(v) + '/s', () => 'in and out of pods']
      : ['Network', '--acc', 'sum(rate(node_network_receive_bytes_total{job="node-exporter", namespace="", device!~"lo|pc.*|veth.*|ifb.*"}[1m])) + sum(rate(node_network_transmit_bytes_total{job="node-exporter", namespace="", device!~"lo|pc.*|veth.*|ifb.*"}[1m]))', v => bytes(v) + '/s', () => 'in and out of nodes'],
  ];
  const got = useLoad(s => Promise.all(charts.map(c => ranged(c[2], from, to, s))), [ns]);
  const errors = useLoad(s => histogram({ query: withNamespace('level:>=error'), from: iso(from), to: iso(to), buckets: '60' }, s), []);
  const past = useLoad(s => Promise.all(charts.map(c => ranged(c[2], from - day, to - day + ahead, s, stepFor(from, to)))), [ns], nowAndThen);
  const pastErrors = useLoad(s => histogram({ query: withNamespace('level:>=error'), from: iso(from - day), to: iso(to - day), buckets: '60' }, s), [], nowAndThen);
  const minutes = (to - from) / 60000, e = errors.data, few = e && e.total < 10;
  const old = e && pastErrors.data && dayBefore(e, pastErrors.data);
  return (
    <>
      {charts.map((c, i) => {
        const v = got.data?.[i], d = v && align(v.series.slice(0, 1), [c[0]], v.step), b = past.data?.[i];
        const then = d && b?.series[0] && b.step === v.step ? shifted(d.times, b.series[0].values ?? [], b.step, day) : null;
        const last = v?.series[0]?.values?.at(-1)?.[1];
        return (
          <Card key={c[0]} title={c[0]} side={then && d!.lines[0] && <Versus now={d!.lines[0].values} then={then} />}>
            <div class="st"><span class="v"><A to="/metrics" q={{ expr: c[2] }}>{last === undefined ? '–' : c[3](Number(last))}</A><small>{nodes ? c[4](nodes) : ''}</small></span></div>
            {d && d.lines.length > 0 ? <Chart {...d} lines={[...d.lines.map(l => ({ ...l, color: c[1] })), ...(then ? [{ name: 'a day before', values: then, color: '--fg3', dash: true }] : [])]} fill from={from} to={to} height={112} format={c[3]} binary={c[0] !== 'CPU'} label={`${c[0]} over time`} size={62} /> : <Empty>{got.error ? got.error.message : 'no samples in this range yet'}</Empty>}
          </Card>
        );
      })}
      <Card title="Error log lines" side={old && <Versus now={e!.buckets.map(b => b.count)} then={old} bad />}>
        <div class="st"><span class="v"><A to="/logs" q={{ q: 'level:>=error' }}>{e ? (few ? count(e.total) : num(e.total / minutes)) : '–'}</A><small>{few ? 'in this range' : 'per minute in this range'}</small></span></div>
        {e ? <Chart times={e.buckets.map(b => Date.parse(b.time))} lines={[{ name: 'error lines', values: e.buckets.map(b => b.count), color: '--red' }, ...(old ? [{ name: 'a day before', values: old, color: '--fg3', dash: true }] : [])]} fill from={from} to={to} height={112} label="Error lines over time" size={62} /> : <Empty>{errors.error?.message ?? ''}</Empty>}
      </Card>
    </>
  );
}

const day = 864e5;

/** dayBefore puts the counts of a day before into the same buckets; null when nothing was stored then. */
function dayBefore(h: Histogram, past: Histogram): (number | null)[] | null {
  const by = new globalThis.Map(past.buckets.map(b => [Date.parse(b.time), b.count]));
  return past.total > 0 ? h.buckets.map(b => by.get(Date.parse(b.time) - day) ?? null) : null;
}

/** Versus compares with a day before, at the times that both have. bad: more is worse. */
function Versus({ now, then, bad }: { now: (number | null)[]; then: (number | null)[]; bad?: boolean }) {
  const p = change(now, then);
  return p === null ? null : <span class={bad && p > 50 ? 'red vs' : 'mut vs'} title="compared with the same hours a day before">{percent(p)} vs. yesterday</span>;
}

const imagesOf = (o: Obj) => (o.spec?.template?.spec?.containers ?? []).map((c: any) => String(c.image).replace(/^.*\//, '')).join(', ');

function Changes() {
  const sets = watched('apis/apps/v1/replicasets').value, at = now(), ns = namespace.value;
  const list = (sets ?? []).filter(r => (!ns || r.metadata.namespace === ns) && r.metadata.ownerReferences?.some(o => o.kind === 'Deployment'))
    .sort((a, b) => Date.parse(b.metadata.creationTimestamp) - Date.parse(a.metadata.creationTimestamp)).slice(0, 8);
  return (
    <Card title="Recent changes" sub="new versions of Deployments">
      {list.map(r => (
        <div class="row c3" key={r.metadata.uid}>
          <A to="/logs" title="what was written around it" q={{ q: `pod:${r.metadata.name}*`, ns: r.metadata.namespace!, from: iso(Date.parse(r.metadata.creationTimestamp) - 12e4), to: iso(Math.min(at, Date.parse(r.metadata.creationTimestamp) + 6e5)) }}><span class="vio">▲ </span>{r.metadata.ownerReferences!.find(o => o.kind === 'Deployment')!.name}</A>
          <span class="mut" title={imagesOf(r)}>{imagesOf(r)}</span>
          <time title={r.metadata.creationTimestamp}>{ago(Date.parse(r.metadata.creationTimestamp), at)} <b>{hm(Date.parse(r.metadata.creationTimestamp))}</b></time>
        </div>
      ))}
      {sets && list.length === 0 && <Empty>No Deployment has been rolled out here.</Empty>}
    </Card>
  );
}

function Warnings({ events }: { events: Obj[] | null }) {
  const ns = namespace.value;
  const list = (events ?? []).filter(e => e.type === 'Warning' && (!ns || e.metadata.namespace === ns)).sort((a, b) => eventTime(b) - eventTime(a)).slice(0, 8);
  return (
    <Card title="Warning events" side={<A to="/logs" q={{ q: 'kind:event' }} class="mut">All events</A>}>
      {list.map(e => (
        <div class="row c4" key={e.metadata.uid}>
          <span class="amb">{e.reason}</span><span title={e.message}>{e.involvedObject?.kind === 'Pod' ? <A class="f2" to={`/pods/${e.involvedObject.namespace}/${e.involvedObject.name}`} q={{ at: iso(eventTime(e)) }}>{middle(e.involvedObject.name, 24)}</A> : <span class="f2">{middle(e.involvedObject?.name ?? '', 24)}</span>} <span class="mut">{e.message}</span></span>
          <span class="mut">{e.count > 1 ? `×${e.count}` : ''}</span><time>{hm(eventTime(e))}</time>
        </div>
      ))}
      {events && list.length === 0 && <Empty>No warnings in the last hour.</Empty>}
    </Card>
  );
}

function Loud() {
  const { from, to } = range();
  const got = useLoad(async s => {
    const top = (await values('pod', { query: withNamespace('kind:log'), from: iso(from), to: iso(to), limit: '6' }, s)).values.filter(v => v.value);
    const per = await Promise.all(top.map(v => histogram({ query: withNamespace(`kind:log ${term('pod', v.value)}`), from: iso(from), to: iso(to), buckets: '40' }, s).catch(() => null)));
    return top.map((v, i) => ({ value: v.value, count: per[i]?.total ?? 0, buckets: per[i]?.buckets ?? [] })).filter(v => v.count > 0).sort((a, b) => b.count - a.count);
  }, []);
  return (
    <Card title="Loudest pods" sub="log lines in this range" side={<A to="/logs" class="mut">Open logs</A>}>
      {(got.data ?? []).map(v => {
        const bad = v.buckets.reduce((n, b) => n + errorsOf(b), 0);
        return (
          <div class="row c4l" key={v.value}>
            <A to="/logs" q={{ q: term('pod', v.value) }} title={v.value}>{middle(v.value, 17)}</A><Spark values={v.buckets.map(b => b.count)} color={bad > v.count * 0.05 ? '--red' : '--slt'} w={90} h={22} />
            <span class="r" title={count(v.count)}>{v.count < 1e5 ? count(v.count) : num(v.count)}</span><span class={bad ? 'r red' : 'r mut'}>{v.count ? `${((bad / v.count) * 100).toFixed(0)} % err` : ''}</span>
          </div>
        );
      })}
      {got.error && <ErrorBox error={got.error} />}
      {got.data?.length === 0 && <Empty>No pod has written a line here. Try <code>perch run hello --image=…</code></Empty>}
    </Card>
  );
}
