import { instant, watched } from './api';
import { ago, bytes, num } from './format';
import { useLoad } from './load';
import { term } from './logquery';
import { condition, podState, quantity } from './objects';
import { A, Card, Empty, ErrorBox, Partial } from './parts';
import { now } from './url';

const questions = {
  cpu: '1 - sum by (node) (rate(node_cpu_seconds_total{job="node-exporter", namespace="", mode=~"idle|iowait"}[1m])) / count by (node) (node_cpu_seconds_total{job="node-exporter", namespace="", mode="idle"})',
  asked: 'sum by (node) (kube_pod_container_resource_requests{job="kube-state-metrics", resource="cpu"}) / sum by (node) (kube_node_status_allocatable{job="kube-state-metrics", namespace="", resource="cpu"})',
  memory: 'sum by (node) (node_memory_MemTotal_bytes{job="node-exporter", namespace=""} - node_memory_MemAvailable_bytes{job="node-exporter", namespace=""})',
  askedMemory: 'sum by (node) (kube_pod_container_resource_requests{job="kube-state-metrics", resource="memory"}) / sum by (node) (kube_node_status_allocatable{job="kube-state-metrics", namespace="", resource="memory"})',
  disk: 'max by (node) (1 - node_filesystem_avail_bytes{job="node-exporter", namespace="", fstype!~"tmpfs|overlay|squashfs|ramfs"} / node_filesystem_size_bytes{job="node-exporter", namespace=""})',
};

/** wrong tells a condition that is not as it should be: those that say what is well are to be True, all others False. */
const wrong = (c: { type: string; status: string }) => c.type !== 'Ready' && c.status === (/^(PeersRouted|FirewallOpen)$/.test(c.type) ? 'False' : 'True');

/** Share of a whole, as a bar and in words. Without a number nothing is claimed. */
function Share({ v, words, name }: { v?: number; words: string; name: string }) {
  if (v === undefined || !Number.isFinite(v)) return <span class="mut">–</span>;
  return <span class="share2"><span class="meter" role="meter" aria-label={name} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(v * 100)}><i class={v > 0.95 ? 'red' : v > 0.85 ? 'amb' : ''} style={{ width: `${Math.min(100, v * 100)}%` }} /></span>{words}</span>;
}

export function Nodes() {
  const nodes = watched('api/v1/nodes').value, pods = watched('api/v1/pods').value, at = now();
  const use = useLoad(async s => {
    const keys = Object.keys(questions) as (keyof typeof questions)[];
    const got = await Promise.all(keys.map(k => instant(questions[k], s)));
    return { of: Object.fromEntries(keys.map((k, i) => [k, new Map(got[i]!.series.map(x => [x.metric.node ?? '', Number(x.value?.[1])]))])) as Record<keyof typeof questions, Map<string, number>>, warnings: [...new Set(got.flatMap(g => g.warnings))] };
  }, []);
  const u = use.data?.of, percent = (v?: number) => (v === undefined || !Number.isFinite(v) ? '–' : `${Math.round(v * 100)} %`);
  const ready = (nodes ?? []).filter(n => condition(n, 'Ready')?.status === 'True').length;
  return (
    <div class="page">
      <Card title="Nodes" sub={nodes ? `${ready} of ${nodes.length} ready` : 'asking…'} class="fill" side={<Partial warnings={use.data?.warnings} />}>
        {use.error && <ErrorBox error={use.error} />}
        <div class="scroll"><table class="nodes">
          <thead><tr><th>Node</th><th>State</th><th class="r">Pods</th><th>CPU in use</th><th class="r">asked for</th><th>Memory in use</th><th class="r">asked for</th><th>Fullest disk</th><th>Version</th><th class="r">Age</th><th /></tr></thead>
          <tbody>{[...(nodes ?? [])].sort((a, b) => a.metadata.name.localeCompare(b.metadata.name)).map(n => {
            const name = n.metadata.name, is = condition(n, 'Ready'), up = is?.status === 'True';
            const troubles = (n.status?.conditions ?? []).filter(wrong);
            const own = (pods ?? []).filter(p => p.spec?.nodeName === name && podState(p).tone !== 'done').length, mem = quantity(n.status?.capacity?.memory), used = u?.memory.get(name);
            return (
              <tr key={n.metadata.uid}>
                <td><A to="/dash/perch-nodes" q={{ 'var-node': name }}>{name}</A></td>
                <td><span class={`state ${up ? (troubles.length ? 'wait' : 'ok') : 'bad'}`} title={is?.message}>{up ? '●' : '✕'} {up ? 'Ready' : 'Not ready'}{!up && is?.lastTransitionTime && ` for ${ago(Date.parse(is.lastTransitionTime), at)}`}{n.spec?.unschedulable && ', cordoned'}{troubles.map((c: any) => <span key={c.type} title={c.message}>, {c.status === 'True' ? '' : 'not '}{c.type}</span>)}</span></td>
                <td class="r">{own}<span class="mut"> of {n.status?.allocatable?.pods ?? '–'}</span></td>
                <td><Share v={u?.cpu.get(name)} name={`CPU of ${name}`} words={`${percent(u?.cpu.get(name))} of ${num(quantity(n.status?.capacity?.cpu) ?? NaN)}`} /></td><td class="r mut">{percent(u?.asked.get(name))}</td>
                <td><Share v={mem && used !== undefined ? used / mem : undefined} name={`Memory of ${name}`} words={`${bytes(used ?? 0)} of ${bytes(mem ?? 0)}`} /></td><td class="r mut">{percent(u?.askedMemory.get(name))}</td>
                <td><Share v={u?.disk.get(name)} name={`Disk of ${name}`} words={percent(u?.disk.get(name))} /></td>
                <td class="f2">{n.status?.nodeInfo?.kubeletVersion}</td><td class="r mut">{ago(Date.parse(n.metadata.creationTimestamp), at)}</td>
                <td class="r"><A class="btn q sm" to="/logs" q={{ q: `${term('node', name)} level:>=warn` }}>Logs</A></td>
              </tr>
            );
          })}</tbody>
        </table>{nodes?.length === 0 && <Empty>No node has joined. <code>perch node join</code> prints the command for one.</Empty>}</div>
      </Card>
    </div>
  );
}
