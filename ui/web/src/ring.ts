// The last ten minutes of a pod second by second, as its node keeps them.
import { call } from './api';
import { align, type ChartData } from './chart';

type Point = { t: number; cpu: number; workingSet: number };
type Answer = { container?: string; points: Point[] };

/** kept is how far back a node knows every second, in ms. */
export const kept = 6e5;

export type Seconds = { mem: ChartData; cpu: ChartData };

/** ring asks the node; null: it does not answer, or the user may not ask it. */
export async function ring(node: string, namespace: string, pod: string, from: number, to: number, signal: AbortSignal): Promise<Seconds | null> {
  const q = new URLSearchParams({ namespace, pod, since: String(Math.floor(from / 1000)) });
  let all: Answer[];
  try {
    all = (await (await call(`/k8s/api/v1/nodes/${node}/proxy/perch/v1/ring?${q}`, { signal })).json()) as Answer[];
  } catch (e) {
    if ((e as Error).name === 'AbortError') throw e;
    return null;
  }
  const by = new Map<string, Point[]>(); // instances of one container follow each other
  for (const a of all) if (a.container) by.set(a.container, [...(by.get(a.container) ?? []), ...a.points.filter(p => p.t <= to)]);
  const names = [...by.keys()].sort();
  if (!names.length) return null;
  const series = (f: (p: Point, before: Point | undefined) => number) => align(names.map(n => ({
    values: by.get(n)!.sort((a, b) => a.t - b.t).map((p, i, own) => [Math.round(p.t / 1000), String(f(p, own[i - 1]))] as [number, string]),
  })), names, 1);
  return {
    mem: series(p => p.workingSet),
    cpu: series((p, b) => (b && p.cpu >= b.cpu && p.t - b.t < 5000 ? (p.cpu - b.cpu) / 1e6 / (p.t - b.t) : NaN)), // ns over ms
  };
}
