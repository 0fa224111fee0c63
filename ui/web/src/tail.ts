// The live tail: new lines as they are stored, none of them twice.
import { form, type Line } from './api';

/** overlap is how far a tail goes back behind the newest line, in ns: nodes do not store lines in one order. */
const overlap = 1000n * 1000_000n;

/** nanos of a time as the log API writes it. */
export function nanos(time: string): bigint {
  const part = /\.(\d+)/.exec(time)?.[1] ?? '';
  return BigInt(Date.parse(time.slice(0, 19) + 'Z')) * 1000_000n + BigInt(part.padEnd(9, '0'));
}

/** Seen knows which lines are shown already, of the last moment. */
class Seen {
  newest = 0n;
  private ids = new Map<string, bigint>();
  private kept = 1000;

  recent() {
    return new Set(this.ids.keys());
  }

  /** add tells whether a line is new. */
  add(l: Line): boolean {
    if (!l.id || this.ids.has(l.id)) return !l.id;
    const t = nanos(l.time);
    if (t > this.newest) this.newest = t;
    if (this.newest - t > overlap) return true;
    this.ids.set(l.id, t);
    if (this.ids.size >= 2 * this.kept) {
      for (const [id, at] of this.ids) if (this.newest - at > overlap) this.ids.delete(id);
      this.kept = Math.max(this.ids.size, 1000);
    }
    return true;
  }
}

type To = { take: (l: Line[]) => void; say: (words: string) => void };

/** tail goes on after the lines that are shown, oldest first, so that none falls
 * between, and begins anew there when the door was away. cut says that lines older
 * than the first were left out; they stay so. The answer ends it. */
export function tail(asks: string[], shown: Line[], cut: boolean, to: To): () => void {
  const seen = new Seen(), first = cut ? shown[0] : undefined, floor = first ? nanos(first.time) : 0n;
  for (const l of shown) seen.add(l);
  let source: EventSource, frame = 0, again = 0, wait = 500, buffer: Line[] = [], before = new Set<string>();
  const flush = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    const batch = buffer;
    buffer = [];
    to.take(batch);
  };
  const open = () => {
    before = seen.recent(); // a node that answers late tells them again, however late
    const back = seen.newest - overlap, after = back > floor || !first ? `${back}.0000000000000000-0` : `${floor}.${first.id}`; // many lines may have one time
    source = new EventSource('/logs/api/v1/tail?' + form({ query: asks, ...(seen.newest ? { cursor: after } : {}) }));
    source.onopen = () => (wait = 500);
    source.onmessage = e => {
      const l = JSON.parse(e.data as string) as Line;
      if (l.id && before.has(l.id) || !seen.add(l)) return;
      buffer.push(l);
      if (buffer.length >= 5000) flush(); // a page that nobody looks at has no frames
      else frame ||= requestAnimationFrame(flush);
    };
    const says = (kind: string, words: (data: any) => string) => source.addEventListener(kind, e => {
      if (e instanceof MessageEvent) to.say(words(JSON.parse(e.data as string)));
    });
    says('dropped', () => 'lines came too fast for the tail, or its expression takes too long: some are left out here');
    says('missing', d => `without new lines of ${(d.nodes as string[]).join(', ')}`);
    says('hidden', d => `without lines of namespaces that you may not read: ${(d.namespaces as string[]).join(', ')}`);
    says('error', d => d.error as string);
    source.onerror = e => {
      if (e instanceof MessageEvent) return;
      source.close(); // its own retry would go on after the last line that came, not after the newest
      again = window.setTimeout(open, wait);
      wait = Math.min(2 * wait, 5000);
    };
  };
  open();
  return () => {
    source.close();
    clearTimeout(again);
    cancelAnimationFrame(frame);
  };
}
