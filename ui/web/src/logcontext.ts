// What stands around a line, in its place: the part of the address that says so,
// and the rows.
import { useEffect, useState } from 'preact/hooks';
import { around, type Line, type LogStats, type Scope, scopes } from './api';
import { type LogList, more } from './loglist';
import { param, set } from './url';

/** some lines are shown on each side at first; most can be asked for. */
const some = 10, most = 2000;

export type Context = { id: string; scope: Scope; before: number; after: number };

/** context is what the address asks for: around=<line>, scope, span=<before>-<after>. */
export function context(): Context | null {
  const id = param('around');
  if (!id) return null;
  const scope = scopes.find(s => s === param('scope')) ?? 'container', m = /^(\d+)-(\d+)$/.exec(param('span'));
  const n = (t?: string) => Math.min(t === undefined ? some : Number(t), most);
  return { id, scope, before: n(m?.[1]), after: n(m?.[2]) };
}

/** lift opens what is around a line. Records that no container wrote have a pod or a stream around them. */
export function lift(l: Line) {
  if (!l.id) return;
  const scope = l.kind === 'log' || !l.kind ? (l.container ? null : 'stream') : l.pod ? 'pod' : 'stream';
  set({ around: l.id, scope, span: null, line: null });
}

/** none of it is in the address of another question. */
export const none = { line: null, around: null, scope: null, span: null };

export const drop = () => set({ ...none, line: param('line') || null });

/** widen asks for more lines before (-1) or after (1). */
export function widen(by: -1 | 1) {
  const c = context();
  if (!c) return;
  const n = (now: number, grows: boolean) => Math.min(grows ? now + 2 * some : now, most);
  set({ span: `${n(c.before, by < 0)}-${n(c.after, by > 0)}` }, true);
}

export type Shown = { of?: Line; stats?: LogStats; error?: Error; busy: boolean };

/** useContext keeps the list's excerpt as the address says. loaded is a number of
 * the lines that are in the list: others were asked for when it changes. */
export function useContext(list: () => LogList, loaded: number): Shown {
  const c = context(), [shown, setShown] = useState<Shown>({ busy: false });
  useEffect(() => {
    if (!c) {
      list().hide();
      setShown({ busy: false });
    }
    if (!c || !loaded) return;
    const stop = new AbortController();
    setShown(s => ({ ...s, busy: true }));
    around(c.id, c.scope, c.before, c.after, stop.signal).then(got => {
      const at = got.lines.findIndex(l => l.id === c.id);
      if (at < 0) throw new Error('This line is not stored any more, or you may not read it.');
      const end = (n: number, asked: number) => n < asked || asked >= most;
      const first = more(-1, end(at, c.before) ? (c.before >= most ? 'no more here' : 'nothing was written before') : `${2 * some} more before  ⇧↑`);
      const last = more(1, end(got.lines.length - 1 - at, c.after) ? (c.after >= most ? 'no more here' : 'nothing was written after, so far') : `${2 * some} more after  ⇧↓`);
      list().show([first, ...got.lines, last], at + 1);
      setShown({ of: got.lines[at], stats: got.stats, busy: false });
    }).catch((error: Error) => error.name !== 'AbortError' && setShown({ error, busy: false }));
    return () => stop.abort();
  }, [c?.id, c?.scope, c?.before, c?.after, loaded]);
  return shown;
}
