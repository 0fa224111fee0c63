// The URL is the page's state: path, time range, namespace, query. Everything
// that a colleague should see when they open the link is in it.
import { computed, signal } from '@preact/signals';

export const url = signal(new URL(location.href));
addEventListener('popstate', () => (url.value = new URL(location.href)));

/** These follow every link; the rest belongs to one page. */
const carried = ['from', 'to', 'ns', 'tz'];

export type Query = Record<string, string | string[] | null>;

/** href of a page with the carried parameters and some of its own. */
export function href(path: string, query: Query = {}): string {
  const u = new URL(path, location.origin);
  for (const k of carried) {
    const v = url.value.searchParams.get(k);
    if (v !== null) u.searchParams.set(k, v);
  }
  write(u, query);
  return u.pathname + u.search;
}

/** write sets parameters, several times for a list, and takes those away that are empty. */
function write(u: URL, query: Query) {
  for (const [k, v] of Object.entries(query)) {
    u.searchParams.delete(k);
    for (const one of [v ?? []].flat()) if (one) u.searchParams.append(k, one);
  }
}

/** go to a page; replace for what is dragged, push for what is chosen. */
export function go(to: string, replace = false) {
  const u = new URL(to, location.href);
  history[replace ? 'replaceState' : 'pushState'](null, '', u);
  url.value = u;
}

/** change some parameters of the page shown. */
export function set(query: Query, replace = false) {
  const u = new URL(url.value);
  write(u, query);
  go(u.pathname + u.search, replace);
}

export const path = computed(() => url.value.pathname);
export const param = (name: string) => url.value.searchParams.get(name) ?? '';
export const params = (name: string) => url.value.searchParams.getAll(name);
export const namespace = computed(() => param('ns'));

/** now on the server's clock; api.ts keeps the difference. */
export const clock = { skew: 0 };
export const now = () => Date.now() + clock.skew;

const units: Record<string, number> = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 };

/** parseTime reads now, now-1h, ISO and unix milliseconds; null if it cannot. */
export function parseTime(text: string, at = now()): number | null {
  if (text === 'now') return at;
  const rel = /^now-(\d+)([smhdw])$/.exec(text);
  if (rel) return at - Number(rel[1]) * units[rel[2]!]!;
  if (/^\d{10,13}$/.test(text)) return Number(text);
  const t = Date.parse(text);
  return Number.isNaN(t) ? null : t;
}

export const fromText = computed(() => param('from') || 'now-1h');
export const toText = computed(() => param('to') || 'now');
export const live = computed(() => toText.value === 'now');

/** range of the page in ms; relative ends move with the clock. */
export function range(): { from: number; to: number } {
  const at = now();
  const to = parseTime(toText.value, at) ?? at;
  const from = parseTime(fromText.value, at) ?? to - 36e5;
  return { from: Math.min(from, to - 1000), to };
}

/** beat moves every few seconds while the range ends now and the tab is seen. */
export const beat = signal(0);
setInterval(() => {
  if (live.value && !document.hidden) beat.value++;
}, 5000);

export function zoom(from: number, to: number) {
  if (to - from < 1000) return;
  set({ from: new Date(from).toISOString(), to: new Date(to).toISOString() });
}

export function zoomOut() {
  const { from, to } = range();
  const half = (to - from) / 2;
  const end = Math.min(to + half, now());
  set({ from: new Date(end - (to - from) * 2).toISOString(), to: end >= now() - 2000 ? 'now' : new Date(end).toISOString() });
}
