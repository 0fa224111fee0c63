// The kinds of lines that match: how many, when, since when, and of which image.
import { useEffect, useState } from 'preact/hooks';
import { iso, lines, type Pattern, patterns } from './api';
import { Spark } from './chart';
import { count, hms } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { pleasant, type Segment } from './loglist';
import { variable } from './logquery';
import { Switches } from './logs';
import { Empty, ErrorBox, Partial } from './parts';
import { fromText, param, params, range, set } from './url';

/** listed at first; asked for at most: more say nothing to a reader. */
const listed = 100, most = 1000;
const day = 864e5;
/** near is what is shown around a line that is older than the range. */
const near = 9e5;

const seen = (p: Pattern) => Date.parse(p.seen?.time ?? p.first);

/** segmentsOf shows a pattern as its lines are shown: the message first. */
export function segmentsOf(p: { pattern: string; level?: string }): Segment[] {
  // A number's place in JSON holds a bare <*>; in quotes the rest can be read.
  const line = p.pattern.startsWith('{') ? p.pattern.replace(/("(?:[^"\\]|\\.)*")|-?<\*>[^\s,\]}"]*/g, (m, text) => text ?? `"${m}"`) : p.pattern;
  return pleasant({ time: '', line, level: p.level }).map(s => ({ ...s, text: s.text.replace(/<\*>(?:[.:/+-]<\*>)+/g, variable) }));
}

/** Words writes a pattern with its variables set apart. */
export const Words = ({ text, level }: { text: string; level?: string }) => (
  <code class="pw">{segmentsOf({ pattern: text, level }).map((s, i) => <span key={i} class={s.cls}>{s.text.split(/(<\*>)/).map((x, k) => (x === variable ? <i key={k}>{x}</i> : x))}</span>)}</code>
);

const imageOf = (p: Pattern) => (p.image ?? '').replace(/^.*\//, '');

export function Patterns({ asks, q }: { asks: string[]; q: string }) {
  const query = asks.join(' '), newest = param('sort') === 'first';
  const [limit, setLimit] = useState(listed);
  const got = useLoad(async s => {
    const span = range();
    return { ...(await patterns({ query: asks, from: iso(span.from), to: iso(span.to), limit: String(limit), buckets: '40' }, s)), ...span };
  }, [query, limit]);
  // Nothing is new where no older line is kept. Asked once.
  const [older, setOlder] = useState(false);
  useEffect(() => {
    const stop = new AbortController(), { from } = range();
    setOlder(false);
    lines({ query: asks, from: '0', to: iso(from - 1), limit: '1' }, l => l.length > 0 && setOlder(true), stop.signal).catch(() => {});
    return () => stop.abort();
  }, [query, fromText.value]);

  const d = got.data, all = d?.patterns ?? [];
  const rows = newest ? [...all].sort((a, b) => seen(b) - seen(a)) : all;
  const top = Math.max(1, ...all.map(p => p.count)), dated = d && (d.to - d.from > day / 2 || all.some(p => d.to - seen(p) > day / 2));
  const move = (e: KeyboardEvent) => {
    const by = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[e.key];
    if (!by || e.ctrlKey || e.metaKey || e.altKey) return;
    const each = [...(e.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('button.pt')];
    e.preventDefault();
    each[Math.max(0, Math.min(each.length - 1, each.indexOf((e.target as HTMLElement).closest('tr')?.querySelector('button.pt') as HTMLElement) + by))]?.focus();
  };
  const hide = (p: Pattern) => set({ without: [...params('without'), p.pattern] });
  return (
    <div class="ls">
      <div class="tb">
        <span class="n" role="status">{d ? `${count(all.length)} ${all.length === 1 ? 'pattern' : 'patterns'}` : ''}</span>
        <span class="mut">{d ? `in ${count(d.total)} lines` : got.error ? '' : 'counting…'}</span>
        {d && <Partial {...d} />}
        <span class="sp" />
        <div class="seg" role="group" aria-label="Order">
          <button class={newest ? '' : 'on'} aria-pressed={!newest} onClick={() => set({ sort: null }, true)}>Most</button>
          <button class={newest ? 'on' : ''} aria-pressed={newest} onClick={() => set({ sort: 'first' }, true)}>Newest</button>
        </div>
        <Switches />
      </div>
      {got.error && <ErrorBox error={got.error} text={q} />}
      <div class={dated ? 'scroll pts dated' : 'scroll pts'} onKeyDown={move}>
        {rows.length > 0 && <table>
          <thead><tr><th class="r">Lines</th><th>Share</th><th>Trend</th><th title="of all lines that are kept">First seen</th><th>Image</th><th>Pattern</th><th /></tr></thead>
          <tbody>{rows.map(p => {
            const at = seen(p), sure = p.seen && !p.seen.maybe_earlier, fresh = older && sure && at >= d!.from, share = d!.total ? p.count / d!.total : 0;
            return (
              <tr key={p.pattern} class={`lv-${p.level}`}>
                <td class="r"><i />{count(p.count)}</td>
                <td class="share"><span class="meter" aria-hidden="true"><i style={{ width: `${(p.count / top) * 100}%` }} /></span>{share >= 0.0995 ? Math.round(share * 100) : share < 0.0005 ? '<0.1' : (share * 100).toFixed(1)} %</td>
                <td><Spark values={p.trend} color={p.level === 'error' || p.level === 'fatal' ? '--red' : p.level === 'warn' ? '--amb' : '--slt'} w={90} h={20} /></td>
                <td><button class="link" title={`${iso(at)}${sure ? '' : ', or before: not all that is older was looked at'}: show this line and what is around it`} onClick={() => set({ view: null, sort: null, pattern: p.pattern, around: p.seen?.id ?? p.id, ...(at < d!.from ? { from: iso(at - near), to: iso(at + near) } : {}) })}>{sure ? '' : '≤ '}{dated && `${iso(at).slice(5, 10)} `}{hms(at)}</button></td>
                <td class="f2 img" title={p.image ?? (p.image_not_looked_for ? 'the image was not looked for: there are too many containers, ask for fewer' : undefined)}>{fresh && <span class="tag v" title={`No such line before this range.${p.image ? ` First written by ${p.image}.` : ''}`}>new</span>}{imageOf(p) || <span class="mut">{p.container || '–'}</span>}</td>
                <td class="pat"><button class="pt" title={`Only lines of this pattern. With Shift: none of them.\n${p.pattern}`} onClick={e => (e.shiftKey ? hide(p) : set({ view: null, sort: null, pattern: p.pattern }))}><Words text={p.pattern} level={p.level} /></button></td>
                <td class="r"><button class="ib" aria-label={`Without ${p.pattern}`} title="Without lines of this pattern" onClick={() => hide(p)}><Icon name="mute" small /></button></td>
              </tr>
            );
          })}</tbody>
        </table>}
        {d && d.other > 0 && <p class="mut more">{count(d.other)} lines are of rarer patterns. {limit < most && <button class="btn sm" onClick={() => setLimit(most)}>Show them</button>}</p>}
        {d && all.length === 0 && <Empty>No line matches{query && <> <code>{query}</code></>} between {hms(d.from)} and {hms(d.to)}.</Empty>}
      </div>
      <div class="keys"><kbd>j</kbd><kbd>k</kbd> move <kbd>Enter</kbd> its lines <kbd>⇧Enter</kbd> without them<span class="sp">{variable} is a word with a digit in it</span></div>
    </div>
  );
}
