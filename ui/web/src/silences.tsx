// Silences: what each hides now and would have hidden in the past week, and a
// form for new ones.
import { useState } from 'preact/hooks';
import { instant, rules, silence, type Silence, silences, user } from './api';
import { ago, hm } from './format';
import { useLoad } from './load';
import { Empty, ErrorBox } from './parts';
import { now } from './url';

export type Matcher = Silence['matchers'][number];

/** written as PromQL and amtool have it. */
export const written = (m: Matcher) => m.name + (m.isRegex ? (m.isEqual === false ? '!~' : '=~') : m.isEqual === false ? '!=' : '=') + JSON.stringify(m.value);

/** parse reads NAME=VALUE, !=, =~, !~, quoted or not, separated by commas or spaces; a word alone is an alert's name. */
export function parse(text: string): Matcher[] {
  const out: Matcher[] = [], shape = /\s*,?\s*(?:([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^\s,]+)|([a-zA-Z_]\w*))/y;
  for (let at = 0; text.slice(at).trim().replace(/^,/, '') !== ''; at = shape.lastIndex) {
    shape.lastIndex = at;
    const m = shape.exec(text);
    if (!m) throw new Error(`"${text.slice(at).trim()}": write label=value, !=, =~ or !~, or the name of an alert`);
    if (m[4]) out.push({ name: 'alertname', value: m[4], isRegex: false, isEqual: true });
    else {
      const value = m[3]!.startsWith('"') ? (JSON.parse(m[3]!) as string) : m[3]!;
      if (m[2]!.endsWith('~')) new RegExp(value);
      out.push({ name: m[1]!, value, isRegex: m[2]!.endsWith('~'), isEqual: m[2]![0] === '=' });
    }
  }
  return out;
}

export const matches = (s: { matchers: Matcher[] }, l: Record<string, string>) => s.matchers.every(m => {
  const hit = m.isRegex ? new RegExp(`^(?:${m.value})$`).test(l[m.name] ?? '') : (l[m.name] ?? '') === m.value;
  return hit === (m.isEqual ?? true);
});

/** loud are the alerts that fire, each with the silence that hides it. Who may not read silences sees all. */
export async function loud() {
  const [groups, quiet] = await Promise.all([rules(), silences().catch(() => [])]);
  const active = quiet.filter(s => s.status.state === 'active');
  return {
    groups,
    firing: groups.flatMap(g => g.rules.flatMap(rule => (rule.alerts ?? []).filter(a => a.state === 'firing' && a.labels.severity !== 'none')
      .map(alert => ({ rule, alert, by: active.find(s => matches(s, { alertname: rule.name, ...alert.labels })) })))),
  };
}

/** hides counts what matchers match now and how often such alerts began in the past week. */
export async function hides(all: Matcher[], signal?: AbortSignal): Promise<{ now: number; week: number }> {
  const inside = ['alertstate="firing"', ...all.map(written)].join(',');
  const one = async (q: string) => Number((await instant(q, signal)).series[0]?.value?.[1] ?? 0);
  // A series that was not there a minute before begins. The last minute is the
  // next whole one, so that what began just now counts.
  const [n, week] = await Promise.all([one(`count(ALERTS{${inside}})`),
    one(`sum(count_over_time((ALERTS{${inside}} unless ALERTS{${inside}} offset 1m)[7d:1m] @ ${Math.floor(now() / 1000) + 60}))`)]);
  return { now: n, week };
}

const plural = (n: number, one: string) => `${n} ${n === 1 ? one : one + 's'}`;

/** Hides says it in words, again when the matchers change. */
export function Hides({ of }: { of: Matcher[] }) {
  const key = of.map(written).join(',');
  const got = useLoad(s => hides(of, s), [key]);
  if (got.error) return <span class="red">{got.error.message}</span>;
  if (!got.data) return <span class="mut">counting…</span>;
  return <span class="hides">Hides <b>{plural(got.data.now, 'alert')}</b> now, would have hidden <b>{got.data.week}</b> in the past week.</span>;
}

/** morning stands for the next nine o'clock. */
const morning = 0;
const lengths = [0.5, 2, 8, morning, 24, 168];
const nameOf = (h: number) => (h === morning ? 'Until 09:00' : h < 1 ? '30 min' : h === 168 ? '1 week' : `${h} h`);

/** endOf a silence that begins at a time and lasts so many hours. */
function endOf(at: number, hours: number): number {
  if (hours !== morning) return at + hours * 36e5;
  const d = new Date(at);
  if (d.getHours() >= 9) d.setDate(d.getDate() + 1);
  return d.setHours(9, 0, 0, 0);
}

export const Duration = ({ hours, set }: { hours: number; set: (h: number) => void }) => (
  <div class="seg" role="group" aria-label="Duration">{lengths.map(h => <button key={h} type="button" aria-pressed={hours === h} class={hours === h ? 'on' : ''} onClick={() => set(h)}>{nameOf(h)}</button>)}</div>
);

/** acknowledged marks the silence of somebody who has taken an alert on. */
export const acknowledged = 'acknowledged: ';

export const hush = (all: Matcher[], hours: number, why: string) => {
  const at = now();
  return silence({ matchers: all, startsAt: new Date(at).toISOString(), endsAt: new Date(endOf(at, hours)).toISOString(), createdBy: user.value ?? '', comment: why.trim() });
};

export function Silences({ all, expire }: { all: Silence[]; expire: (id: string) => void }) {
  return (
    <section class="card fill"><div class="scroll"><table class="fixed">
      <colgroup><col style={{ width: '44%' }} /><col /><col style={{ width: '92px' }} /><col style={{ width: '104px' }} /><col style={{ width: '84px' }} /></colgroup>
      <thead><tr><th>What</th><th>Why</th><th>By</th><th>Ends</th><th /></tr></thead>
      <tbody>{all.map(s => <tr key={s.id} class="two">
        <td class="wrap"><span class="mono">{s.matchers.map(written).join(' ')}</span><small><Hides of={s.matchers} /></small></td>
        <td class="wrap">{s.comment}</td><td title={s.createdBy}>{s.createdBy.replace(/^.*:/, '')}</td>
        <td class="mut">{hm(Date.parse(s.endsAt))}<small>in {ago(now(), Date.parse(s.endsAt))}</small></td>
        <td class="r"><button class="btn sm" onClick={() => expire(s.id)}>Expire</button></td></tr>)}</tbody>
    </table>{all.length === 0 && <Empty>Nothing is silenced.</Empty>}</div></section>
  );
}

/** NewSilence is the form beside the list. */
export function NewSilence({ done }: { done: () => void }) {
  const [text, setText] = useState(''), [hours, setHours] = useState(2), [why, setWhy] = useState(''), [error, setError] = useState<Error>();
  let all: Matcher[] = [], wrong = '';
  try {
    all = parse(text);
  } catch (e) {
    wrong = (e as Error).message;
  }
  const make = async (e: Event) => {
    e.preventDefault();
    try {
      await hush(all, hours, why);
      setText(''); setWhy(''); setError(undefined);
      done();
    } catch (x) {
      setError(x as Error);
    }
  };
  return (
    <aside class="side" aria-label="New silence">
      <header><h2>New silence</h2></header>
      <p class="f2">Alerts that all of these match are not told to anybody until it ends. They stay visible here.</p>
      <form class="act" onSubmit={e => void make(e)}>
        <input class="find wide mono" aria-label="Matchers" placeholder='PodNotReady namespace="shop" pod=~"web-.*"' value={text} onInput={e => setText(e.currentTarget.value)} />
        {wrong ? <p class="red">{wrong}</p> : all.length > 0 ? <p><Hides of={all} /></p> : null}
        <Duration hours={hours} set={setHours} />
        <input class="find wide" aria-label="Why" placeholder="Why? (required)" value={why} onInput={e => setWhy(e.currentTarget.value)} />
        <button class="btn p" disabled={!all.length || !!wrong || !why.trim()}>Silence</button>
        {error && <ErrorBox error={error} />}
      </form>
    </aside>
  );
}
