import { logs as api, SeverityNumber } from '@opentelemetry/api-logs'
import { LoggerProvider, BatchLogRecordProcessor } from '@opentelemetry/sdk-logs'
import { OTLPLogExporter as JSONExporter } from '@opentelemetry/exporter-logs-otlp-http'
import { OTLPLogExporter as ProtoExporter } from '@opentelemetry/exporter-logs-otlp-proto'
const [url, token, form] = process.argv.slice(2)
const Exporter = form === 'json' ? JSONExporter : ProtoExporter
const exporter = new Exporter({ url: url + '/otlp/v1/logs', headers: { Authorization: 'Bearer ' + token }, compression: form === 'json' ? 'none' : 'gzip' })
let failed
const send = exporter.export.bind(exporter)
exporter.export = (records, done) => send(records, (result) => { if (result.code !== 0) failed = result.error ?? new Error('export failed'); done(result) })
const provider = new LoggerProvider({ processors: [new BatchLogRecordProcessor({ exporter, scheduledDelayMillis: 100 })] })
const logger = provider.getLogger('checkout', '1.0')
for (let i = 0; i < 100; i++) logger.emit({ severityNumber: SeverityNumber.ERROR, body: 'otlp line ' + i, attributes: { 'http.status': 500, i, deep: { a: [1, 'x'] } } })
await provider.forceFlush()
await provider.shutdown()
if (failed) throw failed
