// The public APIs of the web door, as any client sees them.
import { effect, signal, type Signal } from '@preact/signals';
import type { Dashboard } from './dash';
import { clock, go } from './url';

/** Problem is an error with the server's own words and, for queries, where. */
export class Problem extends Error {
  constructor(text: string, public status: number, public position?: number) {
    super(text);
  }
}

export const user = signal<string | null | undefined>(undefined); // undefined: not asked yet

export async function call(path: string, init?: RequestInit): Promise<Response> {
  const began = Date.now();
  let r: Response;
  try {
    r = await fetch(path, init);
  } catch (e) {
    if ((e as Error).name === 'AbortError') throw e;
    throw new Problem('the server does not answer', 0);
  }
  const date = r.headers.get('Date');
  if (date) {
    const skew = Date.parse(date) + 500 - (began + Date.now()) / 2; // the header has whole seconds
    if (Math.abs(skew) > 2000) clock.skew = skew;
  }
  if (r.ok) return r;
  if (r.status === 401) user.value = null;
  const text = await r.text();
  try {
    const j = JSON.parse(text) as { error?: string; message?: string; position?: number };
    throw new Problem(j.error ?? j.message ?? text, r.status, j.position);
  } catch (e) {
    if (e instanceof Problem) throw e;
    throw new Problem(text.trim() || `${r.status} ${r.statusText}`, r.status);
  }
}

const json = async <T>(path: string, init?: RequestInit) => (await call(path, init)).json() as Promise<T>;

export async function whoami() {
  try {
    user.value = (await json<{ name: string }>('/ui/api/v1/me')).name;
  } catch {
    user.value = null;
  }
}

export async function login(what: { code: string } | { token: string }) {
  user.value = (await json<{ name: string }>('/ui/api/v1/login', { method: 'POST', body: JSON.stringify(what) })).name;
  go('/', true);
}

export async function logout() {
  await call('/ui/api/v1/logout', { method: 'POST' });
  user.value = null;
}

// ---- numbers

export type Labels = Record<string, string>;
export type Series = { metric: Labels; value?: [number, string]; values?: [number, string][] };
export type Vector = { series: Series[]; warnings: string[] };
export type Matrix = Vector & { step: number }; // seconds

async function prom(path: string, form: Record<string, string>, signal?: AbortSignal): Promise<Vector> {
  const j = await json<{ data: { resultType: string; result: unknown }; warnings?: string[] }>('/prometheus/api/v1/' + path, {
    method: 'POST',
    body: new URLSearchParams(form),
    signal,
  });
  const series = j.data.resultType === 'scalar' || j.data.resultType === 'string' ? [{ metric: {}, value: j.data.result as [number, string] }] : (j.data.result as Series[]);
  return { series, warnings: j.warnings ?? [] };
}

export const instant = (query: string, signal?: AbortSignal, at?: number) => prom('query', { query, ...(at && { time: String(at / 1000) }) }, signal);

/** stepFor keeps a range at about 240 points, never under the fast rate of 5 s. */
export const stepFor = (from: number, to: number) => Math.max(5, Math.ceil((to - from) / 1000 / 240));

export async function ranged(query: string, from: number, to: number, signal?: AbortSignal, step = stepFor(from, to)): Promise<Matrix> {
  const snap = (t: number) => String(Math.floor(t / 1000 / step) * step);
  return { ...(await prom('query_range', { query, start: snap(from), end: snap(to), step: String(step) }, signal)), step };
}

/** labelValues of a label, of all series or of those that match a selector. */
export async function labelValues(label: string, match: string, signal?: AbortSignal): Promise<string[]> {
  return (await json<{ data: string[] }>(`/prometheus/api/v1/label/${label}/values` + (match && '?' + new URLSearchParams({ 'match[]': match })), { signal })).data;
}

/** metricNames of all series, or of those that match a selector. */
export async function metricNames(match = ''): Promise<string[]> {
  return (await json<{ data: string[] }>('/prometheus/api/v1/label/__name__/values' + (match && '?' + new URLSearchParams({ 'match[]': match })))).data;
}

export type Target = { scrapePool: string; labels: Labels; scrapeUrl: string; health: 'up' | 'down' | 'unknown'; lastError: string; lastScrape: string; lastScrapeDuration: number; scrapeInterval: string };
/** targets are what numbers are taken from. */
export const targets = async (signal?: AbortSignal) => (await json<{ data: { activeTargets: Target[] } }>('/prometheus/api/v1/targets?state=active', { signal })).data.activeTargets;

export type Alert = { labels: Labels; annotations: Labels; state: string; activeAt: string; value: string };
export type Rule = { name: string; query: string; type: string; state?: string; health: string; lastError?: string; duration?: number; labels?: Labels; annotations?: Labels; alerts?: Alert[] };
export type Group = { name: string; file: string; interval: number; rules: Rule[] };

/** outside is the name of the group of alerts that no rule makes. */
export const outside = 'outside';

/** rules are all groups, and one with what others tell, as if each had a rule. */
export const rules = async (): Promise<Group[]> => {
  const [groups, all] = await Promise.all([json<{ data: { groups: Group[] } }>('/prometheus/api/v1/rules'), json<{ data: { alerts: Alert[] } }>('/prometheus/api/v1/alerts')]);
  const told = new Map<string, Alert[]>();
  for (const a of all.data.alerts) if (a.annotations.perch_from) told.set(a.labels.alertname ?? '', [...(told.get(a.labels.alertname ?? '') ?? []), a]);
  const own = [...told].map(([name, alerts]): Rule => ({ name, query: `ALERTS{alertname=${JSON.stringify(name)},alertsource="outside"}`, type: 'alerting', state: 'firing', health: 'ok', alerts }));
  return own.length ? [...groups.data.groups, { name: outside, file: outside, interval: 0, rules: own }] : groups.data.groups;
};

export type Silence = { id: string; status: { state: string }; matchers: { name: string; value: string; isRegex: boolean; isEqual: boolean }[]; startsAt: string; endsAt: string; createdBy: string; comment: string };
export const silences = () => json<Silence[]>('/alertmanager/api/v2/silences');
export const silence = (s: Omit<Silence, 'id' | 'status'>) =>
  json<{ silenceID: string }>('/alertmanager/api/v2/silences', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(s) });
export const unsilence = (id: string) => call('/alertmanager/api/v2/silence/' + id, { method: 'DELETE' });

// ---- lines

/** iso writes a time as the log API reads it. */
export const iso = (ms: number) => new Date(ms).toISOString();

export type Line = {
  time: string; id?: string; namespace?: string; pod?: string; container?: string; uid?: string; instance?: string; node?: string;
  stream?: string; level?: string; kind?: string; line: string; fields?: Record<string, unknown>;
};
/** Copy of a node's lines, kept by another, that answered. */
export type Copy = { node: string; by: string; at: string };
export type LogStats = { partial?: boolean; reason?: string; missing?: string[]; hidden?: string[]; copies?: Copy[]; cursor?: string; stats?: { lines: number; bytes: number; blocks: number; took_ms: number } };

/** merged is what is to be told of an answer in two parts; the second says where it goes on. */
export function merged(a: LogStats, b: LogStats): LogStats {
  const all = <T>(x: T[] | undefined, y: T[] | undefined, key: (v: T) => string = String) => [...new Map([...(x ?? []), ...(y ?? [])].reverse().map(v => [key(v), v])).values()].reverse();
  const reasons = [a.reason, b.reason].flatMap(r => r?.split('; ') ?? []);
  return { ...b, partial: !!a.partial || !!b.partial, reason: all(reasons, []).join('; '), missing: all(a.missing, b.missing), hidden: all(a.hidden, b.hidden), copies: all(a.copies, b.copies, c => `${c.node} ${c.by}`) };
}

/** Ask is a question to the log API. Of several queries a line matches all, and
 * positions in errors are those within the one that is wrong. */
export type Ask = Record<string, string | string[]>;
export const form = (ask: Ask) => new URLSearchParams(Object.entries(ask).flatMap(([k, v]) => [v].flat().map(x => [k, x])));

/** lines streams matching lines, newest first, to take, and returns the trailer. */
export async function lines(ask: Ask, take: (l: Line[]) => void, signal: AbortSignal, path = 'query'): Promise<LogStats> {
  const r = await call(`/logs/api/v1/${path}?${form(ask)}`, { signal });
  const reader = r.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let trailer: LogStats = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return trailer;
    const parts = (rest + value).split('\n');
    rest = parts.pop()!;
    const batch: Line[] = [];
    for (const p of parts) {
      if (!p) continue;
      const o = JSON.parse(p) as Line & LogStats;
      if (o.time === undefined) trailer = o;
      else batch.push(o);
    }
    if (batch.length) take(batch);
  }
}

/** scopes of what is around a line: its output, or all outputs of its container, pod, workload or node. */
export const scopes = ['stream', 'container', 'pod', 'workload', 'node'] as const;
export type Scope = (typeof scopes)[number];

/** around is what was written before and after a line, oldest first, whatever is searched for. */
export async function around(id: string, scope: Scope, before: number, after: number, signal: AbortSignal): Promise<{ lines: Line[]; stats: LogStats }> {
  const out: Line[] = [];
  const stats = await lines({ id, scope, before: String(before), after: String(after) }, l => out.push(...l), signal, 'context');
  return { lines: out, stats };
}

/** Pattern is a kind of line; <*> stands for a word with a digit in it. */
export type Pattern = { pattern: string; count: number; level: string; first: string; last: string; trend: number[]; id: string; namespace: string; pod: string; container: string; instance: string; seen?: Seen; image?: string; image_not_looked_for?: boolean };
/** Seen tells of a pattern's first line in all that is stored, or in what was looked at of it. */
export type Seen = { time: string; id: string; pod: string; maybe_earlier?: boolean };
export type Patterns = LogStats & { total: number; other: number; patterns: Pattern[] };
export const patterns = (ask: Ask, signal?: AbortSignal) => json<Patterns>('/logs/api/v1/patterns?' + form(ask), { signal });

export type Bucket = { time: string; count: number; levels?: Record<string, number> };
export type Histogram = LogStats & { total: number; buckets: Bucket[] };
export const histogram = (ask: Ask, signal?: AbortSignal) => json<Histogram>('/logs/api/v1/histogram?' + form(ask), { signal });

export type Value = { value: string; count: number };
export type Values = LogStats & { values: Value[] };
export async function values(field: string, ask: Ask, signal?: AbortSignal): Promise<Values> {
  const got = await json<LogStats & { values: Value[] | null }>('/logs/api/v1/values?' + form({ ...ask, field }), { signal });
  return { ...got, values: got.values ?? [] };
}

/** clusterInfo is what the cluster says about itself to everybody. */
export const clusterInfo = async () => (await json<{ data: Record<string, string> }>('/k8s/api/v1/namespaces/kube-public/configmaps/perch-info')).data;

// ---- objects

/** dashboards are the shipped ones and the ConfigMaps with Grafana's label that
 * the user may read. */
export async function dashboards(): Promise<Dashboard[]> {
  const list = await json<{ items: { metadata: { namespace: string; name: string }; data?: Record<string, string> }[] }>('/ui/api/v1/dashboards');
  const out: Dashboard[] = [];
  for (const o of list.items) for (const [file, text] of Object.entries(o.data ?? {})) {
    const from = `${o.metadata.namespace}/${o.metadata.name}`;
    try {
      const d = JSON.parse(text) as Dashboard;
      out.push({ ...d, uid: d.uid || `${o.metadata.name}.${file}`, title: d.title || file, from });
    } catch {
      out.push({ uid: `${o.metadata.name}.${file}`, title: file, description: 'This is no JSON.', from });
    }
  }
  return out.sort((a, b) => a.title.localeCompare(b.title));
}

export type Meta = { name: string; namespace?: string; uid: string; creationTimestamp: string; deletionTimestamp?: string; labels?: Labels; ownerReferences?: { kind: string; name: string; controller?: boolean }[] };
export type Obj = { metadata: Meta; [k: string]: any };

/** watched keeps a list of objects as they are now: list, then watch, again
 * from the start when the watch ends with an error. One for each kind. */
const kinds = new Map<string, Signal<Obj[] | null>>();
export function watched(resource: string): Signal<Obj[] | null> {
  let s = kinds.get(resource);
  if (!s) {
    s = signal<Obj[] | null>(null);
    kinds.set(resource, s);
    void follow(resource, s);
  }
  return s;
}

async function follow(resource: string, out: Signal<Obj[] | null>) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 15000)) {
    try {
      const list = await json<{ metadata: { resourceVersion: string }; items: Obj[] }>('/k8s/' + resource);
      const have = new Map(list.items.map(o => [o.metadata.uid, o]));
      out.value = [...have.values()];
      wait = 500;
      const r = await call(`/k8s/${resource}?watch=1&allowWatchBookmarks=true&resourceVersion=${list.metadata.resourceVersion}`);
      const reader = r.body!.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      let timer = 0;
      const publish = () => {
        timer = 0;
        out.value = [...have.values()];
      };
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split('\n');
        rest = parts.pop()!;
        for (const p of parts) {
          if (!p) continue;
          const e = JSON.parse(p) as { type: string; object: Obj };
          if (e.type === 'ERROR') throw new Error('watch ended');
          if (e.type === 'DELETED') have.delete(e.object.metadata.uid);
          else if (e.type !== 'BOOKMARK') have.set(e.object.metadata.uid, e.object);
        }
        if (!timer) timer = window.setTimeout(publish, 200);
      }
    } catch {
      if (user.value === null) await new Promise<void>(ok => { const off = effect(() => { if (user.value) { ok(); queueMicrotask(() => off()); } }); });
    }
    await new Promise(ok => setTimeout(ok, wait));
  }
}
