// useLoad runs an asking function again when what it depends on changes or the
// clock beats (or every so many beats), cancels what is out of date, and keeps the last answer meanwhile.
import { useEffect, useState } from 'preact/hooks';
import { beat, url } from './url';

export type Loaded<T> = { data?: T; error?: Error; busy: boolean };

export function useLoad<T>(ask: (signal: AbortSignal) => Promise<T>, deps: unknown[], every = 1): Loaded<T> {
  const [state, setState] = useState<Loaded<T>>({ busy: true });
  const q = url.value.searchParams;
  const when = [q.get('from'), q.get('to'), q.get('ns'), Math.floor(beat.value / every)];
  useEffect(() => {
    const stop = new AbortController();
    setState(s => ({ ...s, busy: true }));
    ask(stop.signal).then(
      data => !stop.signal.aborted && setState({ data, busy: false }),
      error => !stop.signal.aborted && setState(s => ({ data: s.data, error, busy: false })),
    );
    return () => stop.abort();
  }, [...when, ...deps]);
  return state;
}
