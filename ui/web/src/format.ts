// How numbers, times and names are written; one place, so that all pages agree.

const p2 = (n: number) => String(n).padStart(2, '0');

export const hms = (t: number) => {
  const d = new Date(t);
  return `${p2(d.getHours())}:${p2(d.getMinutes())}:${p2(d.getSeconds())}`;
};
export const hmsMillis = (t: number) => `${hms(t)}.${String(Math.floor(t) % 1000).padStart(3, '0')}`;
export const hm = (t: number) => hms(t).slice(0, 5);

export function ago(t: number, at: number): string {
  const s = Math.max(0, Math.round((at - t) / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

export function bytes(v: number): string {
  const u = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (Math.abs(v) >= 1024 && i < u.length - 1) {
    v /= 1024;
    i++;
  }
  return `${v >= 100 || i === 0 ? v.toFixed(0) : v.toFixed(1)} ${u[i]}`;
}

export function num(v: number): string {
  const a = Math.abs(v);
  if (Number.isNaN(v)) return '–';
  if (a >= 1e9) return (v / 1e9).toFixed(2) + ' G';
  if (a >= 1e6) return (v / 1e6).toFixed(2) + ' M';
  if (a >= 1e4) return (v / 1e3).toFixed(1) + ' k';
  if (a === 0) return '0';
  if (a < 0.001) return v.toExponential(1);
  return String(Number(v.toPrecision(3)));
}

/** unit finds how numbers with one of Grafana's units are written. */
export function unit(name?: string): (v: number) => string {
  const known: Record<string, (v: number) => string> = {
    bytes, decbytes: bytes, Bps: v => `${bytes(v)}/s`, binBps: v => `${bytes(v)}/s`, percentunit: v => `${num(v * 100)} %`, percent: v => `${num(v)} %`, s: seconds, ms: v => seconds(v / 1000),
    ops: v => `${num(v)}/s`, reqps: v => `${num(v)}/s`, iops: v => `${num(v)}/s`, pps: v => `${num(v)}/s`, 'suffix: cores': cores,
  };
  return known[name ?? ''] ?? num;
}

/** seconds in the unit in which they are read. */
export function seconds(v: number): string {
  const a = Math.abs(v);
  if (a === 0) return '0 s';
  if (a < 1e-3) return `${num(v * 1e6)} µs`;
  if (a < 1) return `${num(v * 1e3)} ms`;
  if (a < 120) return `${num(v)} s`;
  if (a < 7200) return `${num(v / 60)} min`;
  return a < 172800 ? `${num(v / 3600)} h` : `${num(v / 86400)} d`;
}

/** cores below one are written in thousandths, as Kubernetes does: 250 m. */
export const cores = (v: number) => (Math.abs(v) >= 1 || v === 0 ? num(v) : `${Math.abs(v) < 0.01 ? (v * 1000).toFixed(1) : Math.round(v * 1000)} m`);

export const count = (v: number) => Math.round(v).toLocaleString('en');

/** middle cuts a pod's name so that its workload and its own end stay. */
export function middle(name: string, max = 22): string {
  if (name.length <= max) return name;
  const m = /^(.+)-[a-z0-9]{6,10}(-[a-z0-9]{5})$/.exec(name); // a Deployment's: the hash says least
  if (m && m[1]!.length + m[2]!.length + 2 <= max) return `${m[1]}-…${m[2]}`;
  const tail = name.slice(name.lastIndexOf('-'));
  return `${name.slice(0, Math.max(4, max - tail.length - 2))}…${tail}`;
}

/** hue gives a name one of eight series colours, always the same. */
export function hue(name: string): number {
  let h = 0;
  for (let i = 0; i < name.length; i++) h = (h * 31 + name.charCodeAt(i)) >>> 0;
  return h % 8;
}
