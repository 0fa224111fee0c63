import { useState } from 'preact/hooks';
import { type Alert, outside, ranged, rules, silences, unsilence } from './api';
import { bare, Detail, type Row, words } from './alertdetail';
import { History } from './alerthistory';
import { Spark } from './chart';
import { ago, hm, hms } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { Rules, RuleSide } from './ruletable';
import { acknowledged, matches, NewSilence, Silences } from './silences';
import { alertHistory, Lanes } from './spans';
import { Empty, ErrorBox } from './parts';
import { now, param, set } from './url';

const idOf = (a: Alert) => Object.entries(a.labels).sort().map(([k, v]) => `${k}=${v}`).join(',');

export function Alerts() {
  const tab = param('tab') || 'active';
  const [turn, setTurn] = useState(0), [failed, setFailed] = useState<Error>();
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
  const again = () => { setFailed(undefined); setTurn(n => n + 1); };
  const expire = (id: string) => void unsilence(id).then(again, setFailed);
  const every = (got.data?.groups ?? []).filter(g => g.file !== outside).flatMap(g => g.rules.map(r => ({ g, r })));
  const Tab = ({ id, children }: { id: string; children: any }) => <button role="tab" aria-selected={tab === id} class={tab === id ? 'on' : ''} onClick={() => set({ tab: id === 'active' ? null : id })}>{children}</button>;
  return (
    <div class={tab === 'history' ? 'alerts one' : 'alerts'}>
      <div class="left">
        <div class="tabs" role="tablist">
          <Tab id="active">Active <em class={rows.some(r => r.state === 'firing') ? 'red' : ''}>{rows.filter(r => r.state !== 'silenced' && r.state !== 'steady').length}</em></Tab>
          <Tab id="rules">Rules <em>{every.length}</em></Tab><Tab id="silences">Silences <em>{got.data?.silences.length ?? 0}</em></Tab><Tab id="history">History</Tab>
        </div>
        {(failed ?? got.error) && <ErrorBox error={(failed ?? got.error)!} />}
        {tab === 'active' && <Day rows={rows} />}
        {tab === 'active' && (
          <section class="card fill"><div class="scroll">
            {(['firing', 'warning', 'pending', 'silenced', 'steady'] as const).map(state => {
              const own = rows.filter(r => r.state === state);
              return own.length > 0 && <div key={state}>
                <h3 class="sect">{words[state]}<span>{{ firing: 'pages', warning: 'does not page', pending: 'fires if it lasts', silenced: 'hidden by a silence', steady: 'fires as long as alerting works' }[state]}</span></h3>
                {own.map(r => <Item key={idOf(r.alert)} r={r} curve={curveOf(r)} on={r === chosen} expire={expire} />)}
              </div>;
            })}
            {got.data && rows.length === 0 && <Empty>No alert is pending or firing. {every.length} rules are being watched.</Empty>}
          </div></section>
        )}
        {tab === 'rules' && <Rules rows={every} />}
        {tab === 'silences' && <Silences all={got.data?.silences ?? []} expire={expire} />}
        {tab === 'history' && <History />}
      </div>
      {tab === 'rules' ? <RuleSide rows={every} /> : tab === 'silences' ? <NewSilence done={again} /> : tab === 'history' ? null : chosen ? <Detail key={idOf(chosen.alert)} r={chosen} done={again} /> : <aside class="side" />}
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

/** ending says when a silence ends. */
const ending = (t: number) => (t - now() < 864e5 ? `until ${hm(t)}` : `for ${ago(now(), t)}`);

const objectOf = (l: Record<string, string>) => [l.namespace, l.pod ?? l.deployment ?? l.node ?? l.instance].filter(Boolean).join('/');

function Item({ r, curve, on, expire }: { r: Row; curve?: { values: number[]; limit?: number }; on: boolean; expire: (id: string) => void }) {
  return (
    <div class={`ai ${r.state} ${on ? 'on' : ''}`}>
      <button class="main-part" onClick={() => set({ alert: idOf(r.alert) }, true)}>
        <b>{r.rule.name}</b><small>{r.alert.annotations.summary || objectOf(r.alert.labels)}</small>
      </button>
      {curve ? <Spark values={curve.values} limit={curve.limit} color={{ firing: '--red', warning: '--amb', pending: '--amb', silenced: '--slt', steady: '--slt' }[r.state]} /> : <span />}
      <div class="when"><b class={`w-${r.state}`}>{r.by?.comment.startsWith(acknowledged) ? 'Taken on' : words[r.state]}</b><small title={r.by && `${r.by.createdBy.replace(/^.*:/, '')}: ${r.by.comment.replace(acknowledged, '')}`}>{r.by ? ending(Date.parse(r.by.endsAt)) : ago(Date.parse(r.alert.activeAt), now())}</small></div>
      {r.by ? <button class="btn sm" onClick={() => expire(r.by!.id)}>Expire</button> : <button class="btn sm" onClick={() => set({ alert: idOf(r.alert) }, true)}><Icon name="mute" small />Act</button>}
    </div>
  );
}
