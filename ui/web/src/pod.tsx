import { useEffect, useMemo, useRef } from 'preact/hooks';
import { histogram, iso, type Line, lines, type Obj, ranged, type Series, watched } from './api';
import { Bars } from './bars';
import { align, Chart, type Mark } from './chart';
import { ago, bytes, cores, hm, hms, hmsMillis, middle } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { term } from './logquery';
import { isEvent, pleasant } from './loglist';
import { limitOf, podState } from './objects';
import { A, Empty, ErrorBox, Partial } from './parts';
import { kept, ring } from './ring';
import { type AlertHistory, alertHistory, Lanes } from './spans';
import { now, param, parseTime, range, set } from './url';

/** Pod is one pod on one time axis: state, alerts, events, numbers, lines. It
 * also works for pods that are gone: what was recorded stays. */
export function Pod({ ns, name }: { ns: string; name: string }) {
  const all = watched('api/v1/pods').value;
  const pod = all?.find(p => p.metadata.namespace === ns && p.metadata.name === name);
  const { from, to } = range(), at = param('at') ? parseTime(param('at')) : null;
  const sel = `namespace="${ns}",pod="${name}"`;
  const numbers = useLoad(async s => {
    const [mem, cpu, net, lim, cpuLim, up, alerts, fine] = await Promise.all([
      ranged(`sum by (container) (container_memory_working_set_bytes{job="kubelet", ${sel},container!=""})`, from, to, s),
      ranged(`sum by (container) (rate(container_cpu_usage_seconds_total{job="kubelet", ${sel},container!=""}[30s]))`, from, to, s),
      ranged(`label_replace(sum(rate(container_network_receive_bytes_total{job="kubelet", ${sel}}[1m])), "way", "received", "", "") or label_replace(sum(rate(container_network_transmit_bytes_total{job="kubelet", ${sel}}[1m])), "way", "sent", "", "")`, from, to, s),
      ranged(`max(sum(kube_pod_container_resource_limits{job="kube-state-metrics", ${sel},resource="memory"}))`, from, to, s),
      ranged(`max(sum(kube_pod_container_resource_limits{job="kube-state-metrics", ${sel},resource="cpu"}))`, from, to, s),
      ranged(`max by (container) (kube_pod_container_status_running{job="kube-state-metrics", ${sel}})`, from, to, s),
      alertHistory(sel, from, to, s),
      to - from <= kept && now() - from <= kept + 6e4 ? ring(pod?.spec?.nodeName, ns, name, from, to, s) : null,
    ]);
    const by = (v: typeof mem) => align(v.series, v.series.map(x => x.metric.container ?? x.metric.way ?? ''), v.step);
    const last = (v: typeof mem) => Number(v.series[0]?.values?.at(-1)?.[1] ?? 0) || null;
    return { mem: fine?.mem ?? by(mem), cpu: fine?.cpu ?? by(cpu), fine: fine !== null, net: by(net), limit: last(lim), cpuLimit: last(cpuLim), up: up.series, alerts, from, to, warnings: mem.warnings };
  }, [ns, name, pod?.spec?.nodeName]);
  const query = `namespace:${ns} ${term('pod', name)}`;
  const told = useLoad(async s => {
    const own: Line[] = [];
    const [hist] = await Promise.all([
      histogram({ query: `${query} kind:log`, from: iso(from), to: iso(to), buckets: '90' }, s),
      lines({ query: `${query} kind:event`, from: iso(from - 36e5), to: iso(to), limit: '500', order: 'asc' }, b => own.push(...b), s),
    ]);
    return { hist, events: own, from, to };
  }, [query]);
  const tail = useLoad(async s => {
    const got: Line[] = [];
    const end = at ? at + 5000 : to;
    const t = await lines({ query: [query, '-kind:audit'], from: iso(from), to: iso(end), limit: '200', order: 'desc' }, b => got.push(...b), s);
    return { lines: got.reverse(), end: t };
  }, [query, at]);
  const events = told.data?.events ?? [], shown = events.filter(e => Date.parse(e.time) >= from);
  const d = numbers.data, h = told.data;
  const run = instances(pod, events, tail.data?.lines ?? [], d?.up ?? [], to);
  const marks = useMemo<Mark[]>(() => [
    ...run.filter(i => i.end).map(i => ({ t: i.end!, color: '--red' })),
    ...(at ? [{ t: at, color: '--fg' }] : []),
  ], [told.data, numbers.data, at]);
  const pin = (t: number) => set({ at: new Date(t).toISOString() }, true);
  const st = pod && podState(pod);
  const left = (t: number) => Math.max(0, Math.min(100, ((t - from) / (to - from)) * 100));
  const list = useRef<HTMLDivElement>(null), pinned = useRef(true);
  useEffect(() => { // after every change of the layout
    if (pinned.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  });
  const span = to - from < 6e5 ? hms : hm, extra = Math.max(0, innerHeight - 800 - 20 * Math.max(0, (d?.alerts.length ?? 0) - 1));
  return (
    <div class="story">
      <div class="head">
        <h2 class="mono">{name}</h2>
        {st ? <span class={`tag ${st.tone === 'ok' ? 'g' : st.tone === 'bad' ? 'r' : 'a'}`}>{st.word}</span> : all && <span class="tag">gone, recorded until {d?.mem.times.length ? hms(d.mem.times.at(-1)!) : '–'}</span>}
        {st && st.restarts > 0 && <span class="tag r">{st.restarts} {st.restarts === 1 ? 'restart' : 'restarts'}</span>}
        {pod && <span class="f2"><b>{(pod.spec?.containers ?? []).map((c: any) => String(c.image).replace(/^.*\//, '')).join(', ')}</b> on <b>{pod.spec?.nodeName ?? 'no node yet'}</b></span>}
        <span class="sp" /><Partial warnings={d?.warnings} {...tail.data?.end} />
        {run.length > 0 && <span class="chips2"><span class="mut">Instances</span>{run.slice(-8).map(i => <button key={i.key} class={`inst-chip ${i.end ? 'bad' : ''}`} aria-label={`Instance ${i.n}`} title={`${i.name}, ${hms(i.start)}${i.why ? `, ${i.why}` : ''}`} onClick={() => set({ at: new Date(i.end ?? i.start).toISOString() }, true)}>{i.n}</button>)}</span>}
      </div>
      {pod ? <Facts pod={pod} events={shown} alerts={d?.alerts ?? []} /> : all && h && <Gone events={events} />}
      <div class="cols">
        <div class="lanes">
          <div class="lane axis"><div class="lt"><small>One time axis</small></div><div class="lb"><div class="strip">{[0, 1, 2, 3, 4, 5].map(k => <span key={k} class={k === 0 ? "first" : k === 5 ? "last5" : ""} style={{ left: `${k * 20}%` }}>{span(from + ((to - from) * k) / 5)}</span>)}{at && at > from && at < to && <b style={{ left: `${left(at)}%` }}>{hms(at)}</b>}</div></div></div>
          <Lane title="State" sub={run.length ? '' : 'no start in this range'}>
            <div class="strip">
              {run.map((i, k) => {
                const next = run.slice(k + 1).find(x => x.name === i.name && x.uid === i.uid);
                return [
                  <div key={i.key} class={`inst ${i.end ? 'ended' : ''}`} style={{ left: `${left(i.start)}%`, width: `max(3px, ${left(i.end ?? to) - left(i.start)}%)` }} title={`${i.name} instance ${i.n}: ${hms(i.start)} – ${i.end ? hms(i.end) : 'now'}${i.why ? `, ${i.why}` : ''}`}>{left(i.end ?? to) - left(i.start) > 2 ? i.n : ''}</div>,
                  i.end && (next || (st?.tone === 'bad' && k === run.length - 1)) && <div key={i.key + 'b'} class="backoff" style={{ left: `${left(i.end)}%`, width: `${left(next?.start ?? to) - left(i.end)}%` }} title={`waiting to start again, ${hms(i.end)} – ${next ? hms(next.start) : 'now'}`} />,
                ];
              })}
            </div>
          </Lane>
          <Lane title="Alerts">{d && d.alerts.length > 0 ? <div class="lanepad"><Lanes rows={d.alerts.map(a => ({ name: a.name, title: a.labels.container, spans: a.spans }))} from={from} to={to} /></div> : <div class="strip none">{d ? 'none in this range' : ''}</div>}</Lane>
          <Lane title="Events">
            <div class="strip">{shown.map(e => {
              const t = Date.parse(e.time);
              return <button key={e.id} class={`evd ${e.fields?.type === 'Warning' ? 'w' : ''}`} style={{ left: `${left(t)}%` }} title={`${hms(t)} ${e.line}`} aria-label={`${hms(t)} ${e.line}`} onClick={() => set({ at: new Date(t).toISOString() }, true)} />;
            })}</div>
          </Lane>
          {numbers.error && <ErrorBox error={numbers.error} />}
          <Lane title="Memory" sub={d?.fine ? 'every second' : 'working set'}>{d && (d.mem.lines.length ? <Chart {...d.mem} from={d.from} to={d.to} height={150 + Math.round(extra * 0.45)} format={bytes} limit={(pod && limitOf(pod, 'memory')) || d.limit} marks={marks} pick={pin} size={72} label="Memory" fill axis={false} /> : <NoNumbers />)}</Lane>
          <Lane title="CPU" sub={d?.fine ? 'cores, every second' : 'cores'}>{d && (d.cpu.lines.length ? <Chart {...d.cpu} from={d.from} to={d.to} height={104 + Math.round(extra * 0.28)} format={cores} limit={(pod && limitOf(pod, 'cpu')) || d.cpuLimit} marks={marks} pick={pin} size={72} label="CPU" fill axis={false} /> : <NoNumbers />)}</Lane>
          <Lane title="Network" sub="per s">{d && (d.net.lines.length ? <Chart {...d.net} from={d.from} to={d.to} height={92} format={bytes} marks={marks} pick={pin} size={72} label="Network" axis={false} /> : <NoNumbers />)}</Lane>
          {told.error && <ErrorBox error={told.error} />}
          <Lane title="Log lines" sub="by level">{h && <div class="lanepad"><Bars buckets={h.hist.buckets} from={h.from} to={h.to} height={92 + Math.round(extra * 0.27)} label={`${h.hist.total} lines over time`} /></div>}</Lane>
        </div>
        <aside class="last" aria-label="Last lines">
          <header><h2>{at ? `Lines up to ${hms(at)}` : 'Last lines'}</h2>{at && <button class="btn q sm" onClick={() => set({ at: null }, true)}>To the end</button>}<span class="sp" /><A to="/logs" q={{ q: term('pod', name), ns }}>Open in Logs<Icon name="right" small /></A></header>
          {pod && <Exit pod={pod} />}
          {tail.error && <ErrorBox error={tail.error} />}
          <div class="lg2" role="log" tabIndex={0} aria-label="Lines of this pod" ref={list} onScroll={e => (pinned.current = e.currentTarget.scrollTop + e.currentTarget.clientHeight > e.currentTarget.scrollHeight - 24)}>
            {tail.data?.lines.map(l => (
              <div key={l.id ?? l.time + l.line} class={`l2 lv-${l.level || 'none'} ${isEvent(l) ? 'ev' : ''}`} title={l.line}><i /><A class="t" title="Show it in Logs, with what is around it" to="/logs" q={{ q: term('pod', name), ns, around: l.id ?? null, scope: isEvent(l) ? 'pod' : null }}>{hmsMillis(Date.parse(l.time)).slice(3)}</A><span class="m">{pleasant(l).map((s, i) => <span key={i} class={s.cls}>{s.text}</span>)}</span></div>
            ))}
            {tail.data?.lines.length === 0 && <Empty>This pod wrote no line in this range. <button class="btn sm" onClick={() => set({ from: 'now-24h', to: null })}>Look in the last 24 hours</button></Empty>}
          </div>
        </aside>
      </div>
    </div>
  );
}

const NoNumbers = () => <div class="strip none">no sample fell into this range</div>;

/** Gone says what the events tell about a pod that is no more. */
function Gone({ events }: { events: Line[] }) {
  const of = (reason: string) => events.find(e => e.fields?.reason === reason);
  const facts: [string, Line | undefined, string][] = [['vio', of('Scheduled'), 'Scheduled'], ['grn', of('Started'), 'Started'], ['amb', events.filter(e => e.fields?.type === 'Warning').at(-1), ''], ['red', of('Killing'), 'Stopped']];
  const known = facts.filter(f => f[1]);
  return <ol class="facts">{known.map(([tone, e, word]) => <li key={e!.id} class={tone}><time>{hms(Date.parse(e!.time))}</time><b>{word || String(e!.fields?.reason)}</b><span title={e!.line}>{e!.line.replace(/^\w+: /, '')}</span></li>)}{known.length === 0 && <li><b>This pod is gone</b><span>its numbers and lines stay as long as they are kept</span></li>}</ol>;
}

const Lane = ({ title, sub, children }: { title: string; sub?: string; children: any }) => <div class="lane"><div class="lt"><b>{title}</b>{sub && <small>{sub}</small>}</div><div class="lb">{children}</div></div>;

type Instance = { key: string; uid: string; name: string; n: number; start: number; end?: number; why?: string };

/** instances from what was recorded: starts from the events (Kubernetes counts
 * them), ends from the status, the last line, or when the numbers say it no
 * longer ran. What the status knows exactly wins. */
function instances(p: Obj | undefined, events: Line[], tail: Line[], up: Series[], to: number): Instance[] {
  const out: Instance[] = [];
  for (const e of events) {
    const name = e.container ?? '';
    if (e.fields?.reason === 'Started' && name) out.push({ key: e.id ?? e.time, uid: e.uid ?? '', name, n: 0, start: Date.parse(e.time) });
  }
  for (const c of p?.status?.containerStatuses ?? []) {
    for (const s of [c.state?.running ?? c.state?.terminated, c.lastState?.terminated]) {
      if (!s?.startedAt) continue;
      const start = Date.parse(s.startedAt), have = out.find(i => i.name === c.name && Math.abs(i.start - start) < 1500);
      const i = have ?? { key: c.name + start, uid: p!.metadata.uid, name: c.name, n: 0, start };
      if (!have) out.push(i);
      if (s.finishedAt) Object.assign(i, { end: Date.parse(s.finishedAt), why: `${s.reason || 'ended'}, exit ${s.exitCode}` });
    }
  }
  out.sort((a, b) => a.start - b.start);
  for (const id of new Set(out.map(i => i.uid + i.name))) { // counted from the newest, whose number the status knows
    const own = out.filter(i => i.uid + i.name === id), name = own[0]!.name;
    const c = own[0]!.uid === p?.metadata.uid && (p?.status?.containerStatuses ?? []).find((c: any) => c.name === name);
    const newest = c ? (c.restartCount ?? 0) + 1 : own.length;
    own.forEach((i, k) => (i.n = Math.max(1, newest - (own.length - 1 - k))));
  }
  out.forEach((i, k) => {
    if (i.end) return;
    const next = out.slice(k + 1).find(x => x.name === i.name)?.start;
    if (next === undefined && p && (p.status?.containerStatuses ?? []).some((c: any) => c.name === i.name && c.state?.running)) return;
    const until = next ?? to;
    const line = Math.max(0, ...tail.filter(l => l.container === i.name && l.kind === 'log').map(l => Date.parse(l.time)).filter(t => t >= i.start - 1000 && t < until));
    const ran = up.find(s => s.metric.container === i.name)?.values?.filter(v => v[1] === '1').map(v => v[0] * 1000).filter(t => t >= i.start && t < until).at(-1) ?? 0;
    const killed = events.filter(e => e.fields?.reason === 'Killing').map(e => Date.parse(e.time)).find(t => t > i.start && t < until);
    const end = killed ?? Math.max(line, ran, i.start + 500);
    if (next !== undefined || !p) i.end = Math.min(end, until);
  });
  return out;
}

function Facts({ pod, events, alerts }: { pod: Obj; events: Line[]; alerts: AlertHistory[] }) {
  const at = now();
  const facts: [string, string, string, string][] = [['vio', hms(Date.parse(pod.metadata.creationTimestamp)), 'Created', pod.metadata.ownerReferences?.map(o => `by ${o.kind} ${middle(o.name, 30)}`).join(', ') ?? 'by a user']];
  for (const c of pod.status?.containerStatuses ?? []) {
    const e = c.lastState?.terminated;
    if (e) facts.push(['red', hms(Date.parse(e.finishedAt)), `${c.name} ended: ${e.reason || 'Error'}, exit ${e.exitCode}`, `ran ${ago(Date.parse(e.startedAt), Date.parse(e.finishedAt))}, ${c.restartCount} restarts`]);
  }
  const unscheduled = (pod.status?.conditions ?? []).find((c: any) => c.type === 'PodScheduled' && c.status === 'False');
  if (unscheduled) facts.push(['red', hms(Date.parse(unscheduled.lastTransitionTime)), 'Fits on no node', unscheduled.message]);
  const warn = events.filter(e => e.fields?.type === 'Warning').at(-1);
  if (warn) facts.push(['amb', hms(Date.parse(warn.time)), String(warn.fields?.reason ?? 'Warning'), warn.line.replace(/^\w+: /, '')]);
  for (const a of alerts.slice(0, 2)) {
    const s = a.spans.find(x => x.state !== 'pending') ?? a.spans[0];
    if (s) facts.push(['red', hms(s.from), `${a.name} ${s.state === 'pending' ? 'is pending' : 'fired'}`, s.to > at - 6e4 ? 'and still does' : `until ${hms(s.to)}`]);
  }
  if (facts.length === 1 && podState(pod).tone === 'ok') facts.push(['grn', `for ${ago(Date.parse(pod.status?.startTime ?? pod.metadata.creationTimestamp), at)}`, 'Runs without a restart', 'nothing to report']);
  facts.sort((a, b) => a[1].localeCompare(b[1]));
  return <ol class="facts">{facts.slice(0, 5).map(([tone, when, what, more]) => <li key={what + when} class={tone}><time>{when}</time><b title={what}>{what}</b><span title={more}>{more}</span></li>)}</ol>;
}

function Exit({ pod }: { pod: Obj }) {
  const c = (pod.status?.containerStatuses ?? []).find((c: any) => c.lastState?.terminated ?? c.state?.terminated);
  const e = c?.state?.terminated ?? c?.lastState?.terminated;
  if (!e) return null;
  return <dl class="exit"><dt>Exit</dt><dd class={e.exitCode ? 'red' : ''}>{e.exitCode} {e.reason}</dd><dt>At</dt><dd>{hms(Date.parse(e.finishedAt))}</dd><dt>Ran</dt><dd>{ago(Date.parse(e.startedAt), Date.parse(e.finishedAt))}</dd>{e.message && <><dt>Message</dt><dd>{e.message}</dd></>}</dl>;
}
