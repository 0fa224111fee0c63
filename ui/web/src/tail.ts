// The live tail: new lines as they are stored, none of them twice.
import { call, form, Problem, type Line } from './api';

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

/** events of a server that sends them, until it ends. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<{ kind: string; data: string }> {
  const from = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  try {
    for (let have = ''; ;) {
      const { done, value } = await from.read();
      if (done) return;
      const whole = (have + value).split('\n\n');
      have = whole.pop()!;
      for (const e of whole) {
        const of = (field: string) => e.split('\n').flatMap(l => (l.startsWith(field + ': ') ? [l.slice(field.length + 2)] : [])).join('\n');
        yield { kind: of('event'), data: of('data') };
      }
    }
  } finally {
    from.cancel().catch(() => {}); // it may have ended by itself
  }
}

/** To is who hears of a tail: its lines, what it leaves out, and why it stands still, '' when it goes on. */
type To = { take: (l: Line[]) => void; say: (words: string) => void; stuck: (why: string) => void };

/** tail goes on after the lines that are shown, oldest first, so that none falls
 * between, and begins anew there when the door was away. cut says that lines older
 * than the first were left out; they stay so. The answer ends it. */
export function tail(asks: string[], shown: Line[], cut: boolean, to: To): () => void {
  const seen = new Seen(), first = cut ? shown[0] : undefined, floor = first ? nanos(first.time) : 0n;
  for (const l of shown) seen.add(l);
  const stop = new AbortController();
  let frame = 0, again = 0, wait = 500, buffer: Line[] = [], before = new Set<string>();
  const flush = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    const batch = buffer;
    buffer = [];
    to.take(batch);
  };
  const line = (l: Line) => {
    if (l.id && before.has(l.id) || !seen.add(l)) return;
    buffer.push(l);
    if (buffer.length >= 5000) flush(); // a page that nobody looks at has no frames
    else frame ||= requestAnimationFrame(flush);
  };
  const words: Record<string, (d: any) => string> = {
    dropped: () => 'lines came too fast for the tail, or its expression takes too long: some are left out here',
    missing: d => `without new lines of ${(d.nodes as string[]).join(', ')}`,
    hidden: d => `without lines of namespaces that you may not read: ${(d.namespaces as string[]).join(', ')}`,
    error: d => d.error as string,
  };
  const open = async () => {
    before = seen.recent(); // a node that answers late tells them again, however late
    const back = seen.newest - overlap, after = back > floor || !first ? `${back}.0000000000000000-0` : `${floor}.${first.id}`; // many lines may have one time
    try {
      const r = await call('/logs/api/v1/tail?' + form({ query: asks, ...(seen.newest ? { cursor: after } : {}) }), { signal: stop.signal });
      wait = 500;
      to.stuck('');
      for await (const e of events(r.body!)) {
        if (!e.kind && e.data) line(JSON.parse(e.data) as Line);
        else if (words[e.kind]) to.say(words[e.kind]!(JSON.parse(e.data)));
      }
    } catch (e) {
      if (e instanceof Problem || e instanceof SyntaxError) to.stuck(e.message); // else it broke off
    }
    if (stop.signal.aborted) return;
    again = window.setTimeout(open, wait);
    wait = Math.min(2 * wait, 5000);
  };
  open();
  return () => {
    stop.abort();
    clearTimeout(again);
    cancelAnimationFrame(frame);
  };
}
