import { FluentServer } from '@fluent-org/logger'
import fs from 'fs'
const [cert, key, sharedKey] = process.argv.slice(2)
const server = new FluentServer({ listenOptions: { host: '127.0.0.1', port: 0 }, tlsOptions: { cert: fs.readFileSync(cert), key: fs.readFileSync(key) },
  security: { serverHostname: 'far', sharedKey, authorize: false, userDict: {} } })
server.on('entry', (tag, time, record) => console.log(JSON.stringify({ tag, record })))
await server.listen()
console.log(server.port)
