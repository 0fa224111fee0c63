import { FluentClient } from '@fluent-org/logger'
import fs from 'fs'
const [port, key, ca] = process.argv.slice(2)
for (const mode of ['Message', 'Forward', 'PackedForward', 'CompressedPackedForward']) {
  const client = new FluentClient('shop', { eventMode: mode, ack: { ackTimeout: 10000 }, milliseconds: true,
    socket: { host: '127.0.0.1', port: Number(port), timeout: 10000, ...(ca ? { tls: { ca: fs.readFileSync(ca) } } : {}) },
    ...(key ? { security: { clientHostname: 'edge', sharedKey: key } } : {}) })
  await client.connect()
  const sent = []
  for (let i = 0; i < 25; i++) sent.push(client.emit('web', { message: mode + ' line ' + i, i }))
  await Promise.all(sent)
  await client.shutdown()
}
