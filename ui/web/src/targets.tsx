// What numbers are taken from, and whether that works.
import { useState } from 'preact/hooks';
import { type Target, targets } from './api';
import { ago, seconds } from './format';
import { useLoad } from './load';
import { A, Card, Empty, ErrorBox } from './parts';
import { namespace, now } from './url';

const textOf = (t: Target) => [...Object.values(t.labels), t.scrapeUrl, t.health].join(' ').toLowerCase();
const order = { down: 0, unknown: 1, up: 2 };

export function Targets() {
  const got = useLoad(s => targets(s), []), [find, setFind] = useState(''), at = now(), ns = namespace.value;
  const all = (got.data ?? []).filter(t => !ns || t.labels.namespace === ns), down = all.filter(t => t.health === 'down').length;
  const rows = all.filter(t => textOf(t).includes(find.toLowerCase())).sort((a, b) => (order[a.health] ?? 1) - (order[b.health] ?? 1) || textOf(a).localeCompare(textOf(b)));
  return (
    <div class="page">
      <Card title="Targets" sub={got.data ? `${all.length} are read${down ? `, ${down} of them in vain` : ''}` : 'asking…'} class="fill"
        side={<input class="find" aria-label="Find a target" placeholder="Find a target" value={find} onInput={e => setFind(e.currentTarget.value)} />}>
        {got.error && <ErrorBox error={got.error} />}
        <div class="scroll"><table>
          <thead><tr><th>Job</th><th>Of</th><th>State</th><th class="r">Last read</th><th class="r">Took</th><th class="r">Every</th><th>Node</th></tr></thead>
          <tbody>{rows.slice(0, 500).map(t => (
            <tr key={t.scrapePool + t.scrapeUrl} title={t.scrapeUrl}>
              <td><A to="/metrics" q={{ expr: `{job="${t.labels.job}",instance="${t.labels.instance}",__name__=~"up|scrape_.+"}` }}>{t.labels.job}</A></td>
              <td>{t.labels.pod && t.labels.namespace ? <A to={`/pods/${t.labels.namespace}/${t.labels.pod}`}><span class="mut">{t.labels.namespace}/</span>{t.labels.pod}</A> : <span class="f2">{t.labels.metrics_path ?? t.labels.instance}</span>}</td>
              <td class="wrap"><span class={`state ${t.health === 'up' ? 'ok' : t.health === 'down' ? 'bad' : 'wait'}`}>{t.health === 'up' ? '● up' : t.health === 'down' ? '✕ down' : '◌ not read yet'}</span>{t.health === 'down' && <small class="red">{t.lastError}</small>}</td>
              <td class="r mut">{Date.parse(t.lastScrape) > 0 ? ago(Date.parse(t.lastScrape), at) : '–'}</td><td class="r">{t.lastScrapeDuration ? seconds(t.lastScrapeDuration) : '–'}</td><td class="r mut">{t.scrapeInterval}</td><td class="f2">{t.labels.node ?? '–'}</td>
            </tr>
          ))}</tbody>
        </table>
          {rows.length > 500 && <p class="mut more">and {rows.length - 500} more</p>}
          {got.data && rows.length === 0 && <Empty>Nothing is read{ns && <> in {ns}</>}{find && <> that has “{find}”</>}. A pod with the annotation <code>prometheus.io/scrape: "true"</code> is.</Empty>}</div>
      </Card>
    </div>
  );
}
