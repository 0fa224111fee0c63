// LogList shows up to `cap` lines with a few dozen DOM rows: an imperative pool,
// because a virtual DOM costs twice the script time here. Lines are oldest
// first; the view stays where the reader is when lines come or go elsewhere.
import type { Line } from './api';
import { hmsMillis, hue, middle } from './format';

const rowHeight = 20;
const beside = 6; // rows of an excerpt that are seen on both sides when it opens
export const cap = 200_000;

type Row = HTMLDivElement & { line?: Line; at?: number };

/** Excerpt is what stands around a line, shown in its place among the others. */
type Excerpt = {
  at: number; // of its first row among the lines
  over: number; // 1 when the line itself is one of the list's, which is then not shown twice
  rows: Line[];
  mark: number; // of the line in rows
  off: number; // of the line from the top of the view when it was opened, px
  pinned: boolean; // whether the list was, then
};

/** more makes the row that asks for more lines, before (-1) or after (1) an excerpt. */
export const more = (by: -1 | 1, text: string): Line => ({ time: '', kind: 'more', line: text, fields: { by } });

export class LogList {
  lines: Line[] = [];
  pinned = true; // to the newest line
  cursor = -1;
  highlight: RegExp | null = null;
  raw = false; // JSON lines as they were written
  onOpen: (l: Line) => void = () => {};
  onMore: (by: -1 | 1) => void = () => {};
  onPinned: (pinned: boolean) => void = () => {};
  private spacer = document.createElement('div');
  private pool: Row[] = [];
  private frame = 0;
  private left = -1e9; // when somebody left the end
  private sized: ResizeObserver;
  private excerpt: Excerpt | null = null;

  constructor(private el: HTMLElement) {
    this.spacer.className = 'spacer';
    el.append(this.spacer);
    el.addEventListener('scroll', () => {
      const end = el.scrollTop + el.clientHeight >= el.scrollHeight - 4;
      if (!end || performance.now() > this.left + 300) this.setPinned(end);
      this.schedule();
    }, { passive: true });
    // Who reaches for older lines leaves the end before the view has moved: else
    // lines that come meanwhile would pull it back.
    el.addEventListener('wheel', e => e.deltaY < 0 && this.leave(), { passive: true });
    el.addEventListener('touchmove', () => this.leave(), { passive: true });
    el.addEventListener('mousedown', e => e.target === el && e.offsetX > el.clientWidth && this.leave());
    el.addEventListener('keydown', e => this.key(e));
    el.addEventListener('click', e => {
      const r = (e.target as HTMLElement).closest<Row>('.l');
      if (r?.at !== undefined) this.open(r.at);
    });
    this.sized = new ResizeObserver(() => this.resize());
    this.sized.observe(el);
  }

  destroy() {
    this.sized.disconnect();
    cancelAnimationFrame(this.frame);
    this.el.replaceChildren();
  }

  clear() {
    this.lines = [];
    this.excerpt = null;
    this.cursor = -1;
    this.pinned = true;
    this.resize();
  }

  /** prepend older lines; the reader's view does not move. */
  prepend(older: Line[]) {
    this.lines = older.concat(this.lines);
    if (this.cursor >= 0) this.cursor += older.length;
    if (this.excerpt) this.excerpt.at += older.length;
    const top = this.el.scrollTop;
    this.resize();
    if (!this.pinned) this.el.scrollTop = top + older.length * rowHeight;
  }

  /** append newer lines and drop the oldest above cap. */
  append(newer: Line[]) {
    for (const l of newer) this.lines.push(l); // spread, they may be too many
    const over = this.lines.length - cap;
    const top = this.el.scrollTop;
    if (over > 2048) {
      this.lines.splice(0, over);
      this.cursor = Math.max(-1, this.cursor - over);
      if (this.excerpt && (this.excerpt.at -= over) < 0) Object.assign(this.excerpt, { at: 0, over: 0 });
    }
    this.resize();
    if (!this.pinned && over > 2048) this.el.scrollTop = Math.max(0, top - over * rowHeight);
  }

  /** size counts the rows: the lines, and what an excerpt adds. */
  get size() {
    return this.lines.length + (this.excerpt ? this.excerpt.rows.length - this.excerpt.over : 0);
  }

  private rowAt(k: number): Line | undefined {
    const x = this.excerpt;
    if (!x || k < x.at) return this.lines[k];
    return k < x.at + x.rows.length ? x.rows[k - x.at] : this.lines[k - x.rows.length + x.over];
  }

  /** chosen is the line under the cursor. */
  get chosen(): Line | undefined {
    const l = this.cursor < 0 ? undefined : this.rowAt(this.cursor);
    return l?.kind === 'more' ? undefined : l;
  }

  /** show puts rows in the place of the one at mark, or between the lines where its time
   * belongs. The line stays where it is in the view, but for some rows at its ends. */
  show(rows: Line[], mark: number) {
    const line = rows[mark]!;
    this.leaveFor(line);
    const was = this.excerpt;
    let at = was?.at ?? this.lines.findIndex(l => l.id === line.id), over = was?.over ?? 1;
    if (at < 0) {
      const t = Date.parse(line.time);
      over = 0;
      at = this.lines.findIndex(l => Date.parse(l.time) > t);
      if (at < 0) at = this.lines.length;
    }
    const from = (at + (was?.mark ?? 0)) * rowHeight - this.el.scrollTop;
    const off = was ? from : Math.max(beside * rowHeight, Math.min(from, this.el.clientHeight - beside * rowHeight));
    const under = this.cursor < 0 ? undefined : this.rowAt(this.cursor);
    this.excerpt = { at, over, rows, mark, off: was?.off ?? from, pinned: was?.pinned ?? this.pinned };
    this.setPinned(false);
    this.resize();
    // The cursor stays on its line; of one that asked for more, on the line beside it.
    const by = under?.kind === 'more' ? Number(under.fields!.by) : 0;
    const next = by === 0 ? under : was!.rows[by < 0 ? 1 : was!.rows.length - 2];
    const k = was ? rows.findIndex(l => l.id !== undefined && l.id === next?.id) : mark;
    this.cursor = at + (k < 0 ? mark : k);
    this.el.scrollTop = (at + mark) * rowHeight - off;
    this.refresh();
  }

  /** hide takes the excerpt away; the view is as it was before. */
  hide() {
    const x = this.excerpt;
    if (!x) return;
    this.excerpt = null;
    this.cursor = x.over ? x.at : -1;
    this.setPinned(x.pinned);
    this.resize();
    if (!x.pinned) this.el.scrollTop = x.at * rowHeight - x.off;
    this.refresh();
  }

  /** leaveFor closes the excerpt of another line; this one stays where it is in the view. */
  private leaveFor(line: Line) {
    const x = this.excerpt;
    if (!x || x.rows[x.mark]?.id === line.id) return;
    const i = this.lines.findIndex(l => l.id === line.id), j = x.rows.findIndex(l => l.id === line.id);
    const k = j >= 0 ? x.at + j : i < x.at ? i : i + x.rows.length - x.over;
    const y = k * rowHeight - this.el.scrollTop;
    this.excerpt = null;
    this.cursor = -1;
    this.setPinned(false);
    this.resize();
    if (i >= 0) this.el.scrollTop = i * rowHeight - y;
  }

  /** reveal puts the cursor on a line, if it is among them, and brings it into view. */
  reveal(id: string): boolean {
    const at = this.lines.findIndex(l => l.id === id);
    if (at < 0) return false;
    this.setPinned(false);
    this.cursor = at;
    this.el.scrollTop = at * rowHeight - Math.floor(this.el.clientHeight / 3);
    this.refresh();
    return true;
  }

  private leave() {
    this.left = performance.now();
    this.setPinned(false);
  }

  private setPinned(to: boolean) {
    if (to !== this.pinned) this.onPinned((this.pinned = to));
  }

  refresh() {
    for (const r of this.pool) r.line = undefined;
    this.schedule();
  }

  toEnd() {
    this.pinned = true;
    this.onPinned(true);
    this.resize();
  }

  open(i: number) {
    const l = this.rowAt(i);
    if (!l) return;
    this.cursor = i;
    this.refresh();
    if (l.kind === 'more') this.onMore(l.fields!.by as -1 | 1);
    else this.onOpen(l);
  }

  /** move the cursor and bring it into view. */
  move(by: number) {
    this.goTo((this.cursor < 0 ? Math.floor(this.el.scrollTop / rowHeight) : this.cursor) + by);
  }

  private goTo(row: number) {
    this.cursor = Math.max(0, Math.min(this.size - 1, row));
    const y = this.cursor * rowHeight;
    if (this.cursor < this.size - 1) this.leave(); // the line that was chosen does not run away
    if (y < this.el.scrollTop) this.el.scrollTop = y;
    else if (y + rowHeight > this.el.scrollTop + this.el.clientHeight) this.el.scrollTop = y + rowHeight - this.el.clientHeight;
    this.refresh();
  }

  /** next line of a level, from the cursor, in a direction. */
  find(level: string, by: 1 | -1) {
    for (let i = (this.cursor < 0 ? this.size : this.cursor) + by; i >= 0 && i < this.size; i += by) {
      if (this.rowAt(i)!.level === level) return this.goTo(i);
    }
  }

  private key(e: KeyboardEvent) {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const act: Record<string, () => void> = {
      j: () => this.move(1), ArrowDown: () => this.move(1), k: () => this.move(-1), ArrowUp: () => this.move(-1),
      PageDown: () => this.move(30), PageUp: () => this.move(-30),
      Enter: () => this.open(this.cursor), G: () => this.toEnd(), End: () => this.toEnd(),
      Home: () => this.goTo(0),
      ']': () => this.find('error', 1), '[': () => this.find('error', -1),
    };
    const go = e.shiftKey && e.key === 'ArrowUp' ? () => this.excerpt && this.onMore(-1) : e.shiftKey && e.key === 'ArrowDown' ? () => this.excerpt && this.onMore(1) : act[e.key];
    if (!go) return;
    e.preventDefault();
    e.stopPropagation();
    go();
  }

  private resize() {
    this.spacer.style.height = `${this.size * rowHeight}px`;
    if (this.pinned) this.el.scrollTop = this.el.scrollHeight;
    this.schedule();
  }

  private schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); });
  }

  private render() {
    const first = Math.max(0, Math.floor(this.el.scrollTop / rowHeight) - 6);
    const last = Math.min(this.size, Math.ceil((this.el.scrollTop + this.el.clientHeight) / rowHeight) + 6);
    const busy = new Map<Line, Row>();
    for (const r of this.pool) if (r.line) busy.set(r.line, r);
    const want: Line[] = [], x = this.excerpt;
    for (let k = first; k < last; k++) want.push(this.rowAt(k)!);
    const keep = new Set(want);
    const free = this.pool.filter(r => !r.line || !keep.has(r.line));
    want.forEach((l, k) => {
      let r = busy.get(l);
      if (!r) {
        r = free.pop() ?? this.row();
        r.line = l;
        this.fill(r, l);
      }
      r.at = first + k;
      r.hidden = false;
      r.classList.toggle('sel', r.at === this.cursor);
      r.classList.toggle('cx', !!x && r.at >= x.at && r.at < x.at + x.rows.length);
      r.classList.toggle('cx0', !!x && r.at === x.at + x.mark);
      r.style.transform = `translateY(${r.at * rowHeight}px)`;
    });
    for (const r of free) {
      r.hidden = true;
      r.line = undefined;
    }
  }

  private row(): Row {
    const r = document.createElement('div') as Row;
    r.append(document.createElement('i'), span('t'), span('p'), span('m'));
    this.pool.push(r);
    this.spacer.append(r);
    return r;
  }

  private fill(r: Row, l: Line) {
    const event = isEvent(l);
    if (l.kind === 'more') {
      r.className = 'l ask';
      for (const [i, text] of ['', '', l.line].entries()) r.children[i + 1]!.textContent = text;
      return;
    }
    r.className = `l lv-${l.level || 'none'}${event ? ' ev' : ''}`;
    r.children[1]!.textContent = hmsMillis(Date.parse(l.time));
    const who = l.pod || l.container || l.namespace || '';
    r.children[2]!.textContent = middle(who, 18);
    r.children[2]!.className = `p h${hue(who)}`;
    const m = r.children[3]!;
    m.replaceChildren(...marked(this.raw ? segments(l.line) : pleasant(l), this.highlight));
  }
}

function span(cls: string) {
  const s = document.createElement('span');
  s.className = cls;
  return s;
}

export type Segment = { text: string; cls?: string };

// eslint-disable-next-line no-control-regex
const ansi = /\x1b\[([0-9;]*)m/g;
const logfmt = /([A-Za-z_][\w.-]*)=("(?:[^"\\]|\\.)*"|[^\s"]+)/g;
const jsonToken = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)/g;

export const isEvent = (l: Line) => !!l.kind && l.kind !== 'log';

const asides = /^(time|timestamp|ts|@timestamp|level|lvl|severity|msg|message)$/i;

/** pleasant puts the message first: events as reason and words, JSON lines as
 * the message and then what else they say. Time and level have columns. */
export function pleasant(l: Line): Segment[] {
  if (isEvent(l)) {
    const m = /^([A-Z]\w+): ([\s\S]*)$/.exec(l.line), n = Number(l.fields?.count ?? 1);
    const mark: Segment = { text: l.level === 'warn' || l.level === 'error' ? '✕ ' : '○ ', cls: 'mk' };
    return m ? [mark, { text: m[1]! + '  ', cls: 'ew' }, { text: show(m[2]!), cls: 'ef' }, ...(n > 1 ? [{ text: `  ×${n}`, cls: 'd' }] : [])] : [mark, { text: show(l.line), cls: 'ef' }];
  }
  if (!l.line.startsWith('{') || !l.line.endsWith('}') || l.line.length > 16_384) return segments(l.line);
  let o: Record<string, unknown>;
  try {
    o = JSON.parse(l.line) as Record<string, unknown>;
  } catch {
    return segments(l.line);
  }
  const message = o.msg ?? o.message;
  if (typeof message !== 'string') return segments(l.line);
  const out: Segment[] = [];
  if (l.level === 'warn') out.push({ text: 'WARN ', cls: 'a3' });
  if (l.level === 'error' || l.level === 'fatal') out.push({ text: l.level.toUpperCase() + ' ', cls: 'a1' });
  out.push({ text: show(message) });
  for (const [k, v] of Object.entries(o)) {
    if (asides.test(k)) continue;
    const text = typeof v === 'string' ? (/[\s"=]/.test(v) || v === '' ? JSON.stringify(v) : v) : typeof v === 'object' ? JSON.stringify(v) : String(v);
    out.push({ text: ' ' + k, cls: 'k' }, { text: '=', cls: 'd' }, { text: show(text), cls: typeof v === 'number' || /^-?[\d.]/.test(text) ? 'n' : 's' });
  }
  return out;
}

/** segments colours a line: ANSI as tokens, JSON and logfmt by kind of part. */
export function segments(line: string): Segment[] {
  const text = line.length > 16_384 ? line.slice(0, 16_384) + ' … cut here, open the line for all' : line;
  if (text.includes('\x1b[')) return ansiSegments(text);
  const out: Segment[] = [];
  let at = 0;
  const push = (from: number, to: number, cls?: string) => { if (to > from) out.push({ text: show(text.slice(from, to)), cls }); };
  const json = text.startsWith('{') && text.endsWith('}');
  for (const m of text.matchAll(json ? jsonToken : logfmt)) {
    push(at, m.index);
    const end = m.index + m[0].length;
    if (json) push(m.index, end, m[2] ? 'k' : m[1] ? 's' : 'n');
    else {
      const eq = m.index + m[1]!.length;
      push(m.index, eq, 'k');
      push(eq, eq + 1, 'd');
      push(eq + 1, end, /^-?[\d.]/.test(m[2]!) ? 'n' : 's');
    }
    at = end;
  }
  push(at, text.length);
  return out;
}

function ansiSegments(text: string): Segment[] {
  const out: Segment[] = [];
  let at = 0, cls: string | undefined;
  for (const m of text.matchAll(ansi)) {
    if (m.index > at) out.push({ text: show(text.slice(at, m.index)), cls });
    const codes = m[1]!.split(';').map(Number);
    const colour = codes.find(c => (c >= 30 && c <= 37) || (c >= 90 && c <= 97));
    cls = colour === undefined ? (codes.includes(0) || m[1] === '' ? undefined : cls) : `a${colour % 10}`;
    at = m.index + m[0].length;
  }
  out.push({ text: show(text.slice(at)), cls });
  return out;
}

/** show makes control characters visible. */
// eslint-disable-next-line no-control-regex
const show = (s: string) => s.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, c => String.fromCharCode(0x2400 + (c.charCodeAt(0) === 0x7f ? 0x21 : c.charCodeAt(0)))).replace(/\n/g, ' ⏎ ');

function marked(segs: Segment[], re: RegExp | null): Node[] {
  const out: Node[] = [];
  const add = (text: string, cls?: string) => {
    const node = cls ? span(cls) : document.createTextNode(text);
    if (cls) node.textContent = text;
    out.push(node);
  };
  for (const s of segs) {
    let at = 0;
    if (re) {
      for (const m of s.text.matchAll(re)) {
        if (!m[0]) break;
        if (m.index > at) add(s.text.slice(at, m.index), s.cls);
        const mark = document.createElement('mark');
        mark.textContent = m[0];
        out.push(mark);
        at = m.index + m[0].length;
      }
    }
    if (at < s.text.length) add(s.text.slice(at), s.cls);
  }
  return out;
}
