// One alert: its value over time, its rule, the lines of its pod, what people
// did about it.
import { useState } from 'preact/hooks';
import { type Alert, iso, type Line, lines, ranged, type Rule, type Silence } from './api';
import { Recent } from './alerthistory';
import { align, Chart } from './chart';
import { ago, hm, hms, num } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { isEvent, pleasant } from './loglist';
import { term } from './logquery';
import { namesOf } from './metrics';
import { A, ErrorBox } from './parts';
import { acknowledged, Duration, Hides, hush } from './silences';
import { now, range } from './url';

export const words = { firing: 'Firing', warning: 'Warning', pending: 'Pending', silenced: 'Silenced', steady: 'Always on' };

export type Row = { rule: Rule; alert: Alert; state: 'firing' | 'warning' | 'pending' | 'silenced' | 'steady'; by?: Silence };

/** bare is the expression without its last comparison, so that the chart shows the value. */
export function bare(query: string): { expr: string; limit: number | null } {
  const m = /^([\s\S]*?)\s*(>|<|>=|<=|==|!=)\s*(-?[\d.]+)\s*$/.exec(query); // equality has no limit
  return m ? { expr: m[1]!, limit: /[<>]/.test(m[2]!) ? Number(m[3]) : null } : { expr: query, limit: null };
}
export function Detail({ r, done }: { r: Row; done: () => void }) {
  const { from, to } = range(), { expr, limit } = bare(r.rule.query);
  const got = useLoad(async s => {
    const v = await ranged(expr, from, to, s);
    const same = v.series.filter(x => Object.entries(x.metric).every(([k, w]) => k === '__name__' || (r.alert.labels[k] ?? w) === w));
    const own = (same.length ? same : v.series).slice(0, 8);
    return { d: align(own, namesOf(own.map(x => x.metric)), v.step), from, to };
  }, [expr]);
  const pod = r.alert.labels.pod;
  const logs = useLoad(async s => {
    if (!pod) return [];
    const out: Line[] = [];
    await lines({ query: `namespace:${r.alert.labels.namespace} ${term('pod', pod)} level:>=warn`, from: iso(from), to: iso(to), limit: '8', order: 'desc' }, b => out.push(...b), s);
    return out.reverse();
  }, [pod]);
  const labels: Record<string, string> = { alertname: r.rule.name, ...r.alert.labels };
  return (
    <aside class="side" aria-label="Alert">
      <header><h2>{r.rule.name}</h2><span class={`tag ${r.state === 'firing' ? 'r' : r.state === 'silenced' || r.state === 'steady' ? '' : 'a'}`}>{words[r.state]} {ago(Date.parse(r.alert.activeAt), now())}</span></header>
      <p>{r.alert.annotations.summary}</p>
      {r.alert.annotations.description && <p class="f2">{r.alert.annotations.description}</p>}
      {r.alert.annotations.perch_from && <p class="f2">No rule of this cluster: {r.alert.annotations.perch_from.replace(/^.*:/, '')} tells it.</p>}
      {got.data && got.data.d.lines.length > 0 && <Chart {...got.data.d} from={got.data.from} to={got.data.to} height={150} limit={limit || null} limitText={limit ? `limit ${num(limit)}` : undefined} bands={[{ from: Date.parse(r.alert.activeAt), to, color: '--red' }]} label="Value of the alert's expression" />}
      <pre class="code">{r.rule.query}{r.rule.duration ? `\nfor ${r.rule.duration} s` : ''}</pre>
      <div class="chips">{Object.entries(r.alert.labels).map(([k, v]) => <span key={k} class="chip">{k}=<b>{v}</b></span>)}</div>
      {pod && <section><h3>Warnings from this pod<A to="/logs" q={{ q: `${term('pod', pod)} level:>=warn`, ns: r.alert.labels.namespace ?? null }}>Logs<Icon name="right" small /></A><A to={`/pods/${r.alert.labels.namespace}/${pod}`} q={{ at: r.alert.activeAt }}>Story<Icon name="right" small /></A></h3>
        {logs.data?.map(l => <div key={l.id ?? l.time} class={`l2 lv-${l.level}`}><i /><A class="t" title="Show it in Logs, with what is around it" to="/logs" q={{ q: term('pod', pod), ns: l.namespace ?? null, around: l.id ?? null, scope: isEvent(l) ? 'pod' : null }}>{hms(Date.parse(l.time))}</A><span class="m">{pleasant(l).map((s, i) => <span key={i} class={s.cls}>{s.text}</span>)}</span></div>)}
        {logs.data?.length === 0 && <p class="mut">It wrote no warning in this range.</p>}</section>}
      {r.by ? <section><h3>{r.by.comment.startsWith(acknowledged) ? 'Taken on' : 'Silenced'}</h3><p class="f2"><b>{r.by.createdBy.replace(/^.*:/, '')}</b> since {hm(Date.parse(r.by.startsAt))}, until {hm(Date.parse(r.by.endsAt))}: {r.by.comment.replace(acknowledged, '')}</p></section>
        : <Act labels={labels} done={done} />}
      <Recent labels={labels} from={Math.min(from, Date.parse(r.alert.activeAt) - 6e4)} to={to} />
    </aside>
  );
}

/** Act is what people do about an alert: take it on, or not hear of it. */
function Act({ labels, done }: { labels: Record<string, string>; done: () => void }) {
  const [hours, setHours] = useState(2), [why, setWhy] = useState(''), [error, setError] = useState<Error>();
  const all = Object.entries(labels).filter(([k]) => k !== 'severity').map(([name, value]) => ({ name, value, isRegex: false, isEqual: true }));
  const act = (before: string) => void hush(all, hours, before + why.trim()).then(done, setError);
  return (
    <section class="act"><h3>Take on, or silence</h3>
      <Duration hours={hours} set={setHours} />
      <p><Hides of={all} /></p>
      <input class="find wide" aria-label="Why" placeholder="Why? (required)" value={why} onInput={e => setWhy(e.currentTarget.value)} />
      <div class="both"><button class="btn p" disabled={!why.trim()} title="You are at it: no reminders, and everybody sees who and why" onClick={() => act(acknowledged)}>Acknowledge</button><button class="btn" disabled={!why.trim()} onClick={() => act('')}><Icon name="mute" small />Silence 1 alert</button></div>
      {error && <ErrorBox error={error} />}
    </section>
  );
}
