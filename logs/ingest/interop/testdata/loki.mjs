import { pino } from 'pino'
const [url, token, json] = process.argv.slice(2)
const logger = pino({ base: null }, pino.transport({ target: 'pino-loki', options: {
  host: url, endpoint: 'loki/api/v1/push', batching: { interval: 1 }, labels: { app: 'shop', namespace: 'forged' },
  headers: { Authorization: 'Bearer ' + token }, silenceErrors: false, structuredMetadata: true } }))
for (let i = 0; i < 100; i++) logger[i % 2 ? 'info' : 'error']({ order: i }, 'loki line ' + i)
await new Promise((done) => logger.flush(done))
