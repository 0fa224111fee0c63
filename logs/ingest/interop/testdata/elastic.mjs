import { Client } from '@elastic/elasticsearch'
const [url, token] = process.argv.slice(2)
const client = new Client({ node: url + '/elastic', auth: { username: 'any', password: token } })
const info = await client.info()
const health = await client.cluster.health()
if (health.status !== 'green' || !info.version.number) throw new Error('probes')
const result = await client.helpers.bulk({
  datasource: Array.from({ length: 100 }, (_, i) => ({ '@timestamp': new Date(1.75e12 + i).toISOString(), message: 'elastic line ' + i, log: { level: 'warn' }, i })),
  onDocument: () => ({ create: { _index: 'logs-shop' } }),
})
if (result.failed !== 0 || result.successful !== 100) throw new Error(JSON.stringify(result))
const one = await client.index({ index: 'single', document: { message: 'elastic line 100', '@timestamp': new Date(1.75e12 + 100).toISOString() } })
if (one.result !== 'created') throw new Error(JSON.stringify(one))
