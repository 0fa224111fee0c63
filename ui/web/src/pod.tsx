import { useMemo } from 'preact/hooks';
import { histogram, instant, iso, type Line, lines, type Obj, ranged, rules, watched } from './api';
import { align, Chart, type Band, type Mark } from './chart';
import { ago, bytes, hms, hmsMillis, middle, num } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { term } from './logs';
import { segments } from './loglist';
import { eventTime, limitOf, podState } from './objects';
import { A, Card, Empty, ErrorBox, Partial } from './parts';
import { now, param, parseTime, range, set } from './url';

/** Pod is one pod on one time axis: state, alerts, events, numbers, lines. It
 * also works for pods that are gone: what was recorded stays. */
export function Pod({ ns, name }: { ns: string; name: string }) {
  const all = watched('api/v1/pods').value, events = watched('api/v1/events').value;
  const pod = all?.find(p => p.metadata.namespace === ns && p.metadata.name === name);
  const { from, to } = range(), at = param('at') ? parseTime(param('at')) : null;
  const sel = `namespace="${ns}",pod="${name}"`;
  const numbers = useLoad(async s => {
    const [mem, cpu, thr, lim] = await Promise.all([
      ranged(`sum by (container) (container_memory_working_set_bytes{${sel},container!=""})`, from, to, s),
      ranged(`sum by (container) (rate(container_cpu_usage_seconds_total{${sel},container!=""}[30s]))`, from, to, s),
      ranged(`sum(rate(container_network_receive_bytes_total{${sel}}[1m])) or vector(0)`, from, to, s),
      instant(`sum(kube_pod_container_resource_limits{${sel},resource="memory"})`, s),
    ]);
    const names = (v: typeof mem) => align(v.series, v.series.map(x => x.metric.container ?? ''));
    return { mem: names(mem), cpu: names(cpu), net: align(thr.series, ['received']), limit: Number(lim.series[0]?.value?.[1] ?? 0), from, to, warnings: mem.warnings };
  }, [ns, name]);
  const query = `namespace:${ns} ${term('pod', name)}`;
  const hist = useLoad(s => histogram({ query, from: iso(from), to: iso(to), buckets: '90' }, s), [query]);
  const tail = useLoad(async s => {
    const got: Line[] = [];
    const end = at ? at + 5000 : to;
    const t = await lines({ query, from: iso(from), to: iso(end), limit: '200', order: 'desc' }, b => got.push(...b), s);
    return { lines: got.reverse(), missing: t.missing };
  }, [query, at]);
  const alerts = useLoad(() => rules(), []);
  const own = (events ?? []).filter(e => e.involvedObject?.name === name && e.involvedObject?.namespace === ns).sort((a, b) => eventTime(a) - eventTime(b));
  const firing = (alerts.data ?? []).flatMap(g => g.rules).flatMap(r => (r.alerts ?? []).filter(a => a.labels.pod === name && a.labels.namespace === ns).map(a => ({ r, a })));
  const marks = useMemo<Mark[]>(() => [
    ...own.filter(e => e.type === 'Warning').map(e => ({ t: eventTime(e), color: '--red' })),
    ...(at ? [{ t: at, color: '--fg2' }] : []),
  ], [events, at]);
  const bands = useMemo<Band[]>(() => firing.filter(f => f.a.state === 'firing').map(f => ({ from: Date.parse(f.a.activeAt), to, color: '--red' })), [alerts.data]);
  const limit = (pod && limitOf(pod, 'memory')) || numbers.data?.limit || null;
  const d = numbers.data;
  const st = pod && podState(pod);
  const pos = (t: number) => `${Math.max(0, Math.min(100, ((t - from) / (to - from)) * 100))}%`;
  return (
    <div class="story">
      <div class="head">
        <h1 class="mono">{name}</h1>
        {st ? <span class={`tag ${st.tone === 'ok' ? 'g' : st.tone === 'bad' ? 'r' : 'a'}`}>{st.word}</span> : all && <span class="tag">gone</span>}
        {st && st.restarts > 0 && <span class="tag r">{st.restarts} restarts</span>}
        {pod && <span class="f2">{(pod.spec?.containers ?? []).map((c: any) => c.image).join(', ')} on <b>{pod.spec?.nodeName ?? 'no node yet'}</b></span>}
        <span class="sp" /><Partial warnings={d?.warnings} missing={tail.data?.missing} />
      </div>
      {pod && <Facts pod={pod} events={own} firing={firing.map(f => f.a.annotations.summary || f.r.name)} />}
      <div class="cols">
        <div class="lanes">
          <Lane title="State" sub={pod ? '' : 'not recorded here'}>
            <div class="strip">
              {pod && instances(pod).map(i => <div key={i.key} class={`inst ${i.end ? 'ended' : ''}`} style={{ left: pos(i.start), width: `calc(${pos(i.end ?? to)} - ${pos(i.start)})` }} title={`${i.name} instance ${i.n}: ${hms(i.start)} – ${i.end ? hms(i.end) : 'now'}${i.why ? `, ${i.why}` : ''}`}>{i.n}</div>)}
            </div>
          </Lane>
          <Lane title="Alerts">
            <div class="strip">{firing.map(f => <div key={f.r.name} class={`al ${f.a.state}`} style={{ left: pos(Date.parse(f.a.activeAt)), right: '0' }} title={f.a.annotations.summary}>{f.r.name}</div>)}</div>
          </Lane>
          <Lane title="Events">
            <div class="strip">{own.map(e => eventTime(e) >= from && eventTime(e) <= to && <button key={e.metadata.uid} class={`evd ${e.type === 'Warning' ? 'w' : ''}`} style={{ left: pos(eventTime(e)) }} title={`${hms(eventTime(e))} ${e.reason}: ${e.message}`} aria-label={`${e.reason}: ${e.message}`} onClick={() => set({ at: new Date(eventTime(e)).toISOString() }, true)} />)}</div>
          </Lane>
          {numbers.error && <ErrorBox error={numbers.error} />}
          <Lane title="Memory" sub="working set">{d && <Chart {...d.mem} from={d.from} to={d.to} height={150} format={bytes} limit={limit} marks={marks} bands={bands} size={72} label="Memory" fill />}</Lane>
          <Lane title="CPU" sub="cores">{d && <Chart {...d.cpu} from={d.from} to={d.to} height={110} format={num} limit={pod ? limitOf(pod, 'cpu') : null} marks={marks} bands={bands} size={72} label="CPU" fill />}</Lane>
          <Lane title="Network" sub="received per s">{d && <Chart {...d.net} from={d.from} to={d.to} height={90} format={bytes} marks={marks} size={72} label="Network" />}</Lane>
          <Lane title="Log lines" sub="by level">
            {hist.data && <Chart times={hist.data.buckets.map(b => Date.parse(b.time))} from={from} to={to} height={110} size={72} label="Log lines"
              lines={[{ name: 'all', values: hist.data.buckets.map(b => b.count), color: '--slt' }, { name: 'error', values: hist.data.buckets.map(b => b.levels?.error ?? 0), color: '--red' }]} />}
          </Lane>
        </div>
        <aside class="last" aria-label="Last lines">
          <header><h2>{at ? `Lines up to ${hms(at)}` : 'Last lines'}</h2><span class="sp" /><A to="/logs" q={{ q: term('pod', name), ns }}>Open in Logs<Icon name="right" small /></A></header>
          {pod && <Exit pod={pod} />}
          {tail.error && <ErrorBox error={tail.error} />}
          <div class="lg2" role="log" tabIndex={0}>
            {tail.data?.lines.map(l => (
              <div key={l.id ?? l.time + l.line} class={`l2 lv-${l.level || 'none'} ${l.kind && l.kind !== 'log' ? 'ev' : ''}`}><i /><span class="t">{hmsMillis(Date.parse(l.time)).slice(3)}</span><span class="m">{segments(l.line).map((s, i) => <span key={i} class={s.cls}>{s.text}</span>)}</span></div>
            ))}
            {tail.data?.lines.length === 0 && <Empty>This pod wrote no line in this range.</Empty>}
          </div>
        </aside>
      </div>
    </div>
  );
}

const Lane = ({ title, sub, children }: { title: string; sub?: string; children: any }) => <div class="lane"><div class="lt"><b>{title}</b>{sub && <small>{sub}</small>}</div><div class="lb">{children}</div></div>;

type Instance = { key: string; name: string; n: number; start: number; end?: number; why?: string };

/** instances known from the status: the one now and the one before. */
function instances(p: Obj): Instance[] {
  return (p.status?.containerStatuses ?? []).flatMap((c: any) => {
    const out: Instance[] = [], n = (c.restartCount ?? 0) + 1;
    const add = (s: any, k: number) => s?.startedAt && out.push({ key: c.name + k, name: c.name, n: k, start: Date.parse(s.startedAt), end: s.finishedAt ? Date.parse(s.finishedAt) : undefined, why: s.reason && `${s.reason}, exit ${s.exitCode}` });
    add(c.lastState?.terminated, n - 1);
    add(c.state?.running ?? c.state?.terminated, n);
    return out;
  });
}

function Facts({ pod, events, firing }: { pod: Obj; events: Obj[]; firing: string[] }) {
  const at = now();
  const facts: [string, string, string, string][] = [['vio', hms(Date.parse(pod.metadata.creationTimestamp)), 'Created', pod.metadata.ownerReferences?.map(o => `by ${o.kind} ${middle(o.name, 30)}`).join(', ') ?? 'by a user']];
  for (const c of pod.status?.containerStatuses ?? []) {
    const e = c.lastState?.terminated;
    if (e) facts.push(['red', hms(Date.parse(e.finishedAt)), `${c.name} ended: ${e.reason || 'Error'}, exit ${e.exitCode}`, `ran ${ago(Date.parse(e.startedAt), Date.parse(e.finishedAt))}, ${c.restartCount} restarts`]);
  }
  const warn = events.filter(e => e.type === 'Warning').at(-1);
  if (warn) facts.push(['amb', hms(eventTime(warn)), warn.reason, warn.message]);
  for (const f of firing.slice(0, 2)) facts.push(['red', 'now', 'Alert', f]);
  if (facts.length === 1 && podState(pod).tone === 'ok') facts.push(['grn', `for ${ago(Date.parse(pod.status?.startTime ?? pod.metadata.creationTimestamp), at)}`, 'Runs without a restart', 'nothing to report']);
  return <ol class="facts">{facts.slice(0, 5).map(([tone, when, what, more]) => <li key={what + when} class={tone}><time>{when}</time><b title={what}>{what}</b><span title={more}>{more}</span></li>)}</ol>;
}

function Exit({ pod }: { pod: Obj }) {
  const c = (pod.status?.containerStatuses ?? []).find((c: any) => c.lastState?.terminated ?? c.state?.terminated);
  const e = c?.state?.terminated ?? c?.lastState?.terminated;
  if (!e) return null;
  return <dl class="exit"><dt>Exit</dt><dd class={e.exitCode ? 'red' : ''}>{e.exitCode} {e.reason}</dd><dt>At</dt><dd>{hms(Date.parse(e.finishedAt))}</dd><dt>Ran</dt><dd>{ago(Date.parse(e.startedAt), Date.parse(e.finishedAt))}</dd>{e.message && <><dt>Message</dt><dd>{e.message}</dd></>}</dl>;
}
