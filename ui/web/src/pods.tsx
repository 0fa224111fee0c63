import { useState } from 'preact/hooks';
import { instant, watched } from './api';
import { ago, bytes, cores } from './format';
import { useLoad } from './load';
import { limitOf, podState } from './objects';
import { A, Card, Empty } from './parts';
import { namespace, now } from './url';

type Sort = 'name' | 'cpu' | 'memory' | 'restarts' | 'age';

export function Pods() {
  const pods = watched('api/v1/pods').value, ns = namespace.value, at = now();
  const [find, setFind] = useState(''), [sort, setSort] = useState<Sort>('name');
  const use = useLoad(async s => {
    const [cpu, mem] = await Promise.all([
      instant('sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{job="kubelet", container!=""}[30s]))', s),
      instant('sum by (namespace, pod) (container_memory_working_set_bytes{job="kubelet", container!=""})', s),
    ]);
    const by = (v: typeof cpu) => new Map(v.series.map(x => [`${x.metric.namespace}/${x.metric.pod}`, Number(x.value![1])]));
    return { cpu: by(cpu), mem: by(mem) };
  }, []);
  const rows = (pods ?? []).filter(p => (!ns || p.metadata.namespace === ns) && `${p.metadata.namespace}/${p.metadata.name} ${p.spec?.nodeName ?? ''}`.includes(find.toLowerCase()))
    .map(p => {
      const id = `${p.metadata.namespace}/${p.metadata.name}`;
      return { p, id, s: podState(p), cpu: use.data?.cpu.get(id), mem: use.data?.mem.get(id), limit: limitOf(p, 'memory'), age: Date.parse(p.metadata.creationTimestamp) };
    })
    .sort((a, b) => ({ name: 0, cpu: (b.cpu ?? -1) - (a.cpu ?? -1), memory: (b.mem ?? -1) - (a.mem ?? -1), restarts: b.s.restarts - a.s.restarts, age: b.age - a.age })[sort] || a.id.localeCompare(b.id));
  const head = (k: Sort, label: string, cls = '') => <th class={cls} aria-sort={sort === k ? 'descending' : undefined}><button onClick={() => setSort(k)}>{label}</button></th>;
  return (
    <div class="page">
      <Card title="Pods" sub={pods ? `${rows.length}` : 'asking…'} class="fill" side={<input class="find" aria-label="Find a pod" placeholder="Find a pod" value={find} onInput={e => setFind(e.currentTarget.value)} />}>
        <div class="scroll">
          <table>
            <thead><tr>{head('name', 'Pod')}<th>State</th><th>Ready</th>{head('restarts', 'Restarts', 'r')}{head('cpu', 'CPU', 'r')}{head('memory', 'Memory', 'r')}<th>Share of limit</th><th>Node</th>{head('age', 'Age', 'r')}</tr></thead>
            <tbody>
              {rows.map(({ p, id, s, cpu, mem, limit, age }) => (
                <tr key={p.metadata.uid}>
                  <td><A to={`/pods/${id}`}><span class="mut">{p.metadata.namespace}/</span>{p.metadata.name}</A></td>
                  <td><span class={`state ${s.tone}`}>{s.tone === 'bad' ? '✕' : s.tone === 'wait' ? '◌' : s.tone === 'done' ? '✓' : '●'} {s.word}</span></td>
                  <td>{s.ready}</td><td class={s.restarts ? 'r amb' : 'r mut'}>{s.restarts}</td>
                  <td class="r">{cpu === undefined ? '–' : cores(cpu)}</td><td class="r">{mem === undefined ? '–' : bytes(mem)}</td>
                  <td>{limit && mem !== undefined ? <span class="meter" title={`${((mem / limit) * 100).toFixed(0)} % of ${bytes(limit)}`}><i class={mem / limit > 0.9 ? 'red' : mem / limit > 0.75 ? 'amb' : ''} style={{ width: `${Math.min(100, (mem / limit) * 100)}%` }} /></span> : <span class="mut">{limit ? `– of ${bytes(limit)}` : 'no limit'}</span>}</td>
                  <td class="f2">{p.spec?.nodeName ?? '–'}</td><td class="r mut">{ago(age, at)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {pods && rows.length === 0 && <Empty>No pod{ns && <> in {ns}</>}{find && <> named like “{find}”</>}. Pods that are gone are still in <A to="/logs">Logs</A>.</Empty>}
        </div>
      </Card>
    </div>
  );
}
