import { useState } from 'preact/hooks';
import { type Alert, iso, type Line, lines, ranged, type Rule, rules, silence, type Silence, silences, unsilence, user } from './api';
import { align, Chart, Spark } from './chart';
import { ago, hms, num } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { pleasant } from './loglist';
import { term } from './logs';
import { namesOf } from './metrics';
import { alertHistory, Lanes } from './spans';
import { A, Card, Empty, ErrorBox } from './parts';
import { now, param, range, set } from './url';

const words = { firing: 'Firing', warning: 'Warning', pending: 'Pending', silenced: 'Silenced', steady: 'Always on' };

type Row = { rule: Rule; alert: Alert; state: 'firing' | 'warning' | 'pending' | 'silenced' | 'steady'; by?: Silence };

const matches = (s: Silence, l: Record<string, string>) => s.matchers.every(m => {
  const hit = m.isRegex ? new RegExp(`^(?:${m.value})$`).test(l[m.name] ?? '') : (l[m.name] ?? '') === m.value;
  return hit === (m.isEqual ?? true);
});
const idOf = (a: Alert) => Object.entries(a.labels).sort().map(([k, v]) => `${k}=${v}`).join(',');

export function Alerts() {
  const tab = param('tab') || 'active';
  const [turn, setTurn] = useState(0);
  const got = useLoad(async () => {
    const [g, s] = await Promise.all([rules(), silences()]);
    return { groups: g, silences: s.filter(x => x.status.state !== 'expired') };
  }, [turn]);
  const rows: Row[] = (got.data?.groups ?? []).flatMap(g => g.rules.filter(r => r.type === 'alerting').flatMap(rule => (rule.alerts ?? []).map(alert => {
    const by = got.data!.silences.find(s => s.status.state === 'active' && matches(s, { alertname: rule.name, ...alert.labels }));
    return { rule, alert, by, state: by ? 'silenced' as const : alert.state === 'pending' ? 'pending' as const : alert.labels.severity === 'none' ? 'steady' as const : ['warning', 'info'].includes(alert.labels.severity ?? '') ? 'warning' as const : 'firing' as const };
  })));
  const order = { firing: 0, warning: 1, pending: 2, silenced: 3, steady: 4 };
  rows.sort((a, b) => order[a.state] - order[b.state] || Date.parse(b.alert.activeAt) - Date.parse(a.alert.activeAt));
  const chosen = rows.find(r => idOf(r.alert) === param('alert')) ?? rows[0];
  const curves = useLoad(async s => {
    const seen = (await rules()).flatMap(g => g.rules.filter(r => r.type === 'alerting' && r.alerts?.length));
    const at = now();
    return Promise.all(seen.slice(0, 20).map(async r => {
      const { expr, limit } = bare(r.query);
      return { name: r.name, limit, series: (await ranged(expr, at - 36e5, at, s).catch(() => null))?.series ?? [] };
    }));
  }, []);
  const curveOf = (r: Row) => {
    const c = curves.data?.find(x => x.name === r.rule.name);
    const s = c?.series.find(x => Object.entries(x.metric).every(([k, v]) => k === '__name__' || r.alert.labels[k] === undefined || r.alert.labels[k] === v));
    return s && { values: (s.values ?? []).map(v => Number(v[1])), limit: c!.limit || undefined };
  };
  const every = (got.data?.groups ?? []).flatMap(g => g.rules.map(r => ({ g, r })));
  const Tab = ({ id, children }: { id: string; children: any }) => <button role="tab" aria-selected={tab === id} class={tab === id ? 'on' : ''} onClick={() => set({ tab: id === 'active' ? null : id })}>{children}</button>;
  return (
    <div class="alerts">
      <div class="left">
        <div class="tabs" role="tablist">
          <Tab id="active">Active <em class={rows.some(r => r.state === 'firing') ? 'red' : ''}>{rows.filter(r => r.state !== 'silenced' && r.state !== 'steady').length}</em></Tab>
          <Tab id="rules">Rules <em>{every.length}</em></Tab><Tab id="silences">Silences <em>{got.data?.silences.length ?? 0}</em></Tab>
        </div>
        {got.error && <ErrorBox error={got.error} />}
        {tab === 'active' && <Day rows={rows} />}
        {tab === 'active' && (
          <section class="card fill"><div class="scroll">
            {(['firing', 'warning', 'pending', 'silenced', 'steady'] as const).map(state => {
              const own = rows.filter(r => r.state === state);
              return own.length > 0 && <div key={state}>
                <h3 class="sect">{words[state]}<span>{{ firing: 'pages', warning: 'does not page', pending: 'fires if it lasts', silenced: 'hidden by a silence', steady: 'fires as long as alerting works' }[state]}</span></h3>
                {own.map(r => <Item key={idOf(r.alert)} r={r} curve={curveOf(r)} on={r === chosen} done={() => setTurn(n => n + 1)} />)}
              </div>;
            })}
            {got.data && rows.length === 0 && <Empty>No alert is pending or firing. {every.length} rules are being watched.</Empty>}
          </div></section>
        )}
        {tab === 'rules' && <section class="card fill"><div class="scroll"><table>
          <thead><tr><th>Rule</th><th>Expression</th><th>Health</th><th>From</th></tr></thead>
          <tbody>{every.map(({ g, r }) => <tr key={g.file + g.name + r.name + r.query}><td><b>{r.name}</b></td><td class="mono expr" title={r.query}>{r.query}</td><td class={r.health === 'err' ? 'red' : 'mut'} title={r.lastError}>{r.health === 'err' ? r.lastError : r.health}</td><td class="mut">{g.file.split('/').slice(-2).join('/')}</td></tr>)}</tbody>
        </table></div></section>}
        {tab === 'silences' && <section class="card fill"><div class="scroll"><table>
          <thead><tr><th>Hides</th><th>Why</th><th>By</th><th>Ends</th><th /></tr></thead>
          <tbody>{(got.data?.silences ?? []).map(s => <tr key={s.id}><td class="mono">{s.matchers.map(m => `${m.name}${m.isEqual === false ? '!' : ''}=${m.isRegex ? '~' : ''}${m.value}`).join(' ')}</td><td>{s.comment}</td><td>{s.createdBy}</td><td class="mut">{hms(Date.parse(s.endsAt))}</td><td class="r"><button class="btn sm" onClick={() => void unsilence(s.id).then(() => setTurn(n => n + 1))}>Expire</button></td></tr>)}</tbody>
        </table>{got.data?.silences.length === 0 && <Empty>Nothing is silenced.</Empty>}</div></section>}
      </div>
      {chosen && tab === 'active' ? <Detail key={idOf(chosen.alert)} r={chosen} done={() => setTurn(n => n + 1)} /> : <aside class="side" />}
    </div>
  );
}

/** Day shows when what was pending and firing, silenced alerts in grey. */
function Day({ rows }: { rows: Row[] }) {
  const got = useLoad(async s => {
    const to = now(), from = to - 864e5;
    return { from, to, all: await alertHistory('', from, to, s) };
  }, []);
  const d = got.data;
  const lanes = new Map<string, { name: string; dim: boolean; spans: { from: number; to: number; state: string }[] }>();
  for (const h of d?.all ?? []) {
    if (h.labels.severity === 'none') continue;
    const l = lanes.get(h.name) ?? { name: h.name, dim: false, spans: [] };
    l.spans.push(...h.spans);
    l.dim ||= rows.some(r => r.rule.name === h.name && r.state === 'silenced');
    lanes.set(h.name, l);
  }
  const list = [...lanes.values()].sort((a, b) => Math.max(...b.spans.map(s => s.to)) - Math.max(...a.spans.map(s => s.to))).slice(0, 7);
  const ticks: number[] = [];
  if (d) for (let t = Math.ceil(d.from / 72e5) * 72e5; t < d.to - 18e5; t += 72e5) ticks.push(t);
  return (
    <section class="card day" aria-label="Last 24 hours">
      <header><h2>Last 24 hours</h2><span class="mut">{d ? `${lanes.size} ${lanes.size === 1 ? 'rule was' : 'rules were'} active` : 'asking…'}</span><span class="sp keys2"><i class="al firing" />Firing <i class="al warning" />Warning or pending <i class="al dim" />Silenced</span></header>
      {got.error && <ErrorBox error={got.error} />}
      {d && <Lanes named rows={list} from={d.from} to={d.to} />}
      {d && list.length === 0 && <Empty>Nothing fired in the last 24 hours.</Empty>}
      {d && list.length > 0 && <div class="ticks">{ticks.map(t => <span key={t} style={{ left: `calc(174px + (100% - 188px) * ${(t - d.from) / 864e5})` }}>{hms(t).slice(0, 5)}</span>)}</div>}
    </section>
  );
}

const objectOf = (l: Record<string, string>) => [l.namespace, l.pod ?? l.deployment ?? l.node ?? l.instance].filter(Boolean).join('/');

function Item({ r, curve, on, done }: { r: Row; curve?: { values: number[]; limit?: number }; on: boolean; done: () => void }) {
  return (
    <div class={`ai ${r.state} ${on ? 'on' : ''}`}>
      <button class="main-part" onClick={() => set({ alert: idOf(r.alert) }, true)}>
        <b>{r.rule.name}</b><small>{r.alert.annotations.summary || objectOf(r.alert.labels)}</small>
      </button>
      {curve ? <Spark values={curve.values} limit={curve.limit} color={{ firing: '--red', warning: '--amb', pending: '--amb', silenced: '--slt', steady: '--slt' }[r.state]} /> : <span />}
      <div class="when"><b class={`w-${r.state}`}>{words[r.state]}</b><small>{ago(Date.parse(r.alert.activeAt), now())}</small></div>
      {r.by ? <button class="btn sm" onClick={() => void unsilence(r.by!.id).then(done)}>Expire</button> : <button class="btn sm" onClick={() => set({ alert: idOf(r.alert) }, true)}><Icon name="mute" small />Silence</button>}
    </div>
  );
}

/** bare is the expression without its last comparison, so that the chart shows the value. */
export function bare(query: string): { expr: string; limit: number | null } {
  const m = /^([\s\S]*?)\s*(?:>|<|>=|<=|==|!=)\s*(-?[\d.]+)\s*$/.exec(query);
  return m ? { expr: m[1]!, limit: Number(m[2]) } : { expr: query, limit: null };
}

function Detail({ r, done }: { r: Row; done: () => void }) {
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
  const [hours, setHours] = useState(2), [comment, setComment] = useState(''), [error, setError] = useState<Error>();
  const labels: Record<string, string> = { alertname: r.rule.name, ...r.alert.labels };
  const hide = async () => {
    try {
      const at = now();
      await silence({ matchers: Object.entries(labels).filter(([k]) => k !== 'severity').map(([name, value]) => ({ name, value, isRegex: false, isEqual: true })), startsAt: new Date(at).toISOString(), endsAt: new Date(at + hours * 36e5).toISOString(), createdBy: user.value ?? '', comment: comment.trim() });
      done();
    } catch (e) {
      setError(e as Error);
    }
  };
  return (
    <aside class="side" aria-label="Alert">
      <header><h2>{r.rule.name}</h2><span class={`tag ${r.state === 'firing' ? 'r' : r.state === 'silenced' || r.state === 'steady' ? '' : 'a'}`}>{words[r.state]} {ago(Date.parse(r.alert.activeAt), now())}</span></header>
      <p class="f2">{r.alert.annotations.description ?? r.alert.annotations.summary}</p>
      {got.data && got.data.d.lines.length > 0 && <Chart {...got.data.d} from={got.data.from} to={got.data.to} height={150} limit={limit || null} limitText={limit ? `limit ${num(limit)}` : undefined} bands={[{ from: Date.parse(r.alert.activeAt), to, color: '--red' }]} label="Value of the alert's expression" />}
      <pre class="code">{r.rule.query}{r.rule.duration ? `\nfor ${r.rule.duration} s` : ''}</pre>
      <div class="chips">{Object.entries(r.alert.labels).map(([k, v]) => <span key={k} class="chip">{k}=<b>{v}</b></span>)}</div>
      {pod && <section><h3>Warnings from this pod<A to={`/pods/${r.alert.labels.namespace}/${pod}`}>Story<Icon name="right" small /></A></h3>
        {logs.data?.map(l => <div key={l.id ?? l.time} class={`l2 lv-${l.level}`}><i /><span class="t">{hms(Date.parse(l.time))}</span><span class="m">{pleasant(l).map((s, i) => <span key={i} class={s.cls}>{s.text}</span>)}</span></div>)}
        {logs.data?.length === 0 && <p class="mut">It wrote no warning in this range.</p>}</section>}
      {r.state !== 'silenced' && <section><h3>Silence</h3>
        <div class="seg" role="group" aria-label="Duration">{[0.5, 2, 8, 24].map(h => <button key={h} aria-pressed={hours === h} class={hours === h ? 'on' : ''} onClick={() => setHours(h)}>{h < 1 ? '30 min' : `${h} h`}</button>)}</div>
        <input class="find wide" aria-label="Why" placeholder="Why? (required)" value={comment} onInput={e => setComment(e.currentTarget.value)} />
        <button class="btn p" disabled={!comment.trim()} onClick={() => void hide()}>Silence 1 alert</button>
        {error && <ErrorBox error={error} />}</section>}
    </aside>
  );
}
