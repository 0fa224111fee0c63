// The last ten minutes of a pod second by second, as its node keeps them.
import { ranged } from './api';
import { align, type ChartData } from './chart';

/** kept is how far back a node knows every second, in ms. */
export const kept = 6e5;

export type Seconds = { mem: ChartData; cpu: ChartData };

/** ring reads the seconds; null: there are none, or a node does not answer. Without a name all nodes are asked. */
export async function ring(node: string | undefined, namespace: string, pod: string, from: number, to: number, signal: AbortSignal): Promise<Seconds | null> {
  const of = `namespace="${namespace}",pod="${pod}",container!="",ring="1s"${node ? `,node="${node}"` : ''}`;
  const [mem, cpu] = await Promise.all([
    ranged(`sum by (container) (container_memory_working_set_bytes{${of}})`, from, to, signal, 1),
    ranged(`sum by (container) (rate(container_cpu_usage_seconds_total{${of}}[3s]))`, from, to, signal, 1),
  ]);
  if (!mem.series.length || mem.warnings.length) return null;
  const data = (m: typeof mem) => align(m.series, m.series.map(s => s.metric.container ?? ''), 1);
  return { mem: data(mem), cpu: data(cpu) };
}
