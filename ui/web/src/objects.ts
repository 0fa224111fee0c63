// What pages read out of Kubernetes objects.
import type { Obj } from './api';

export type PodState = { word: string; tone: 'ok' | 'wait' | 'bad' | 'done'; restarts: number; ready: string; lastRestart?: number };

/** podState says a pod's state as kubectl's STATUS column does. */
export function podState(p: Obj): PodState {
  const st = p.status ?? {}, spec = p.spec ?? {};
  const all = st.containerStatuses ?? [];
  let word: string = st.reason || st.phase || 'Unknown';
  const restarts = all.reduce((n: number, c: any) => n + (c.restartCount ?? 0), 0);
  let initWaiting = false;
  (st.initContainerStatuses ?? []).forEach((c: any, i: number) => {
    if (initWaiting || (c.state?.terminated && c.state.terminated.exitCode === 0) || c.started) return;
    initWaiting = true;
    word = c.state?.terminated ? `Init:${c.state.terminated.reason || 'Error'}` : c.state?.waiting?.reason && c.state.waiting.reason !== 'PodInitializing' ? `Init:${c.state.waiting.reason}` : `Init:${i}/${spec.initContainers?.length ?? 0}`;
  });
  if (!initWaiting) {
    for (const c of [...all].reverse()) {
      if (c.state?.waiting?.reason) word = c.state.waiting.reason;
      else if (c.state?.terminated) word = c.state.terminated.reason || `ExitCode:${c.state.terminated.exitCode}`;
    }
  }
  if (p.metadata.deletionTimestamp) word = 'Terminating';
  const ready = `${all.filter((c: any) => c.ready).length}/${spec.containers?.length ?? 0}`;
  const ends = all.map((c: any) => Date.parse(c.lastState?.terminated?.finishedAt)).filter((t: number) => t > 0);
  const tone = word === 'Running' && all.every((c: any) => c.ready) ? 'ok' : ['Completed', 'Succeeded'].includes(word) ? 'done'
    : /Error|BackOff|OOM|Failed|Evicted|Invalid|Never|Unknown/.test(word) ? 'bad' : 'wait';
  return { word, tone, restarts, ready, lastRestart: ends.length ? Math.max(...ends) : undefined };
}

export const condition = (o: Obj, type: string) => (o.status?.conditions ?? []).find((c: any) => c.type === type);

/** quantity reads 100m, 1.5, 64Mi, 2G. */
export function quantity(text: string | undefined): number | undefined {
  const m = /^([\d.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?$/.exec(text ?? '');
  if (!m) return undefined;
  const u: Record<string, number> = { m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3, Ti: 1024 ** 4 };
  return Number(m[1]) * (m[2] ? u[m[2]]! : 1);
}

/** limitOf sums a resource's limits over the containers; undefined if one has none. */
export function limitOf(p: Obj, resource: 'cpu' | 'memory'): number | undefined {
  let sum = 0;
  for (const c of p.spec?.containers ?? []) {
    const q = quantity(c.resources?.limits?.[resource]);
    if (q === undefined) return undefined;
    sum += q;
  }
  return sum;
}

export const eventTime = (e: Obj) => Date.parse(e.lastTimestamp || e.eventTime || e.firstTimestamp || e.metadata.creationTimestamp);
