// Charts over time: uPlot behind one component, so that colours, axes, zooming
// and the shared crosshair are the same everywhere.
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { useEffect, useRef } from 'preact/hooks';
import { bytes, hm, hms, num } from './format';
import { theme } from './theme';
import { zoom } from './url';

export type Line = { name: string; values: (number | null)[]; color?: string; dash?: boolean };
export type Band = { from: number; to: number; color: string };
export type Mark = { t: number; color: string; label?: string };
export type ChartData = { times: number[]; lines: Line[] }; // times in ms

type Props = ChartData & {
  height: number; from: number; to: number; label: string;
  format?: (v: number) => string; binary?: boolean; limit?: number | null; limitText?: string;
  bands?: Band[]; marks?: Mark[]; axis?: boolean; size?: number; fill?: boolean; stack?: boolean;
  pick?: (t: number) => void; // a click on a moment, ms
};

const powers = Array.from({ length: 60 }, (_, i) => 2 ** (i - 4)); // steps of byte axes
const palette = ['--blu', '--vio', '--acc', '--pnk', '--snd', '--slt', '--blu2', '--vio2'];
export const seriesColor = (i: number) => palette[i % palette.length]!;
/** lonely samples have no neighbour to draw a line to: they become points. */
const lonely = (u: uPlot, series: number) => {
  const v = u.data[series] as (number | null)[], out: number[] = [];
  for (let i = 0; i < v.length; i++) if (v[i] != null && v[i - 1] == null && v[i + 1] == null) out.push(i);
  return out;
};
const font = '11px Inter, system-ui, sans-serif';
const css = (name: string) => (name.startsWith('--') ? getComputedStyle(document.documentElement).getPropertyValue(name).trim() : name);

/** stacked puts each line on those before it. */
function stacked(lines: Line[]): (number | null)[][] {
  const sum: number[] = [];
  return lines.map(l => l.values.map((v, i) => (v === null ? null : (sum[i] = (sum[i] ?? 0) + v))));
}

export function Chart(p: Props) {
  const box = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const shade = theme.value;
  useEffect(() => {
    const el = box.current!;
    const format = p.format ?? num;
    const fill = p.fill ?? p.lines.length === 1; // stacked: the lowest, the others by bands
    const drawn = p.stack ? stacked(p.lines) : p.lines.map(l => l.values);
    const top = Math.max(...drawn.flatMap(l => l.map(v => v ?? 0)), p.limit ?? 0, 0) * 1.12 || 1;
    const color = (l: Line, i: number) => css(l.color ?? seriesColor(i));
    const u = new uPlot(
      {
        width: el.clientWidth || 300, height: p.height, padding: [8, p.axis === false ? 8 : 17, p.axis === false ? 4 : 0, 0], legend: { show: false },
        cursor: { sync: { key: 'time' }, points: { size: 5 }, drag: { x: true, y: false, setScale: false }, y: false },
        scales: { x: { time: true, range: [p.from / 1000, p.to / 1000] }, y: { range: [0, top] } },
        axes: [
          { show: p.axis !== false, stroke: css('--fg3'), font, grid: { show: false }, ticks: { show: false }, size: 22, gap: 4, space: 90, values: (_, v) => v.map(x => (p.to - p.from < 6e5 ? hms(x * 1000) : hm(x * 1000))) },
          { stroke: css('--fg3'), font, grid: { stroke: css('--line'), width: 1 }, ticks: { show: false }, size: p.size ?? 56, gap: 6, space: 34, ...(p.binary || format === bytes ? { incrs: powers } : {}), values: (_, v) => v.map(format) },
        ],
        bands: p.stack ? p.lines.map((l, i) => ({ series: [i + 1, i] as [number, number], fill: color(l, i) + '30' })).slice(1) : [],
        series: [{}, ...p.lines.map((l, i) => ({ label: l.name, stroke: color(l, i), width: l.dash ? 1 : 1.5, dash: l.dash ? [3, 3] : undefined, fill: p.stack && i === 0 ? color(l, i) + '30' : fill && !l.dash ? color(l, i) + '1f' : undefined, points: { show: true, size: 4, fill: color(l, i), filter: lonely }, spanGaps: false }))],
        hooks: {
          drawClear: [u => {
            const { left, top: y, width, height } = u.bbox;
            for (const b of p.bands ?? []) {
              const x0 = Math.max(left, u.valToPos(b.from / 1000, 'x', true)), x1 = Math.min(left + width, u.valToPos(b.to / 1000, 'x', true));
              u.ctx.fillStyle = css(b.color);
              u.ctx.globalAlpha = 0.08;
              u.ctx.fillRect(x0, y, x1 - x0, height);
              u.ctx.globalAlpha = 1;
            }
          }],
          draw: [u => {
            const { left, top: y, width, height } = u.bbox, c = u.ctx, r = devicePixelRatio;
            c.save();
            c.lineWidth = r;
            c.setLineDash([4 * r, 4 * r]);
            if (p.limit) {
              const at = u.valToPos(p.limit, 'y', true);
              c.strokeStyle = c.fillStyle = css('--amb');
              c.beginPath(); c.moveTo(left, at); c.lineTo(left + width, at); c.stroke();
              c.font = `${11 * r}px Inter, system-ui, sans-serif`;
              c.textAlign = 'right';
              c.textBaseline = 'bottom';
              c.fillText(p.limitText ?? `limit ${format(p.limit)}`, left + width - 4 * r, at - 2 * r);
            }
            for (const m of p.marks ?? []) {
              const at = u.valToPos(m.t / 1000, 'x', true);
              if (at < left || at > left + width) continue;
              c.strokeStyle = css(m.color);
              c.beginPath(); c.moveTo(at, y); c.lineTo(at, y + height); c.stroke();
            }
            c.restore();
          }],
          setSelect: [u => {
            if (u.select.width > 4) zoom(u.posToVal(u.select.left, 'x') * 1000, u.posToVal(u.select.left + u.select.width, 'x') * 1000);
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          }],
          setCursor: [u => {
            const t = tip.current!, i = u.cursor.idx;
            if (i == null || u.cursor.left == null || u.cursor.left < 0 || !el.matches(':hover')) {
              t.hidden = true;
              return;
            }
            const rows = p.lines.map((l, k) => ({ l, k, v: l.values[i] })).filter(r => r.v != null).sort((a, b) => b.v! - a.v!);
            t.replaceChildren();
            const head = document.createElement('b');
            head.textContent = hms(u.data[0]![i]! * 1000);
            t.append(head);
            for (const r of rows.slice(0, 9)) {
              const row = document.createElement('div'), dot = document.createElement('i'), name = document.createElement('span'), v = document.createElement('em');
              dot.style.background = color(r.l, r.k);
              name.textContent = r.l.name;
              v.textContent = format(r.v!);
              row.append(dot, name, v);
              t.append(row);
            }
            t.hidden = false;
            const right = u.cursor.left > u.over.clientWidth / 2;
            t.style.left = right ? '' : `${u.cursor.left + (p.size ?? 56) + 14}px`;
            t.style.right = right ? `${u.over.clientWidth - u.cursor.left + 22}px` : '';
          }],
        },
      },
      [p.times.map(t => t / 1000), ...drawn] as uPlot.AlignedData,
      el,
    );
    let down = 0;
    u.over.addEventListener('mousedown', e => (down = e.clientX));
    u.over.addEventListener('click', e => Math.abs(e.clientX - down) < 4 && p.pick?.(u.posToVal(e.clientX - u.over.getBoundingClientRect().left, 'x') * 1000));
    const ro = new ResizeObserver(() => u.setSize({ width: el.clientWidth, height: p.height }));
    ro.observe(el);
    if (document.fonts.status !== 'loaded') void document.fonts.ready.then(() => u.root.isConnected && u.redraw(false, true));
    return () => { ro.disconnect(); u.destroy(); };
  }, [p.times, p.lines, p.height, p.from, p.to, p.limit, p.bands, p.marks, shade]);
  return <div class="chart" role="img" aria-label={p.label}><div ref={box} /><div class="tip" ref={tip} hidden /></div>;
}

/** Spark is a row-sized chart without axes. */
export function Spark({ values, color = '--blu', limit, w = 118, h = 30 }: { values: number[]; color?: string; limit?: number; w?: number; h?: number }) {
  if (values.length < 2) return <svg width={w} height={h} aria-hidden="true" />;
  const top = Math.max(...values, limit ?? 0) * 1.08 || 1;
  const x = (i: number) => (i / (values.length - 1)) * (w - 4) + 2, y = (v: number) => h - 2 - (v / top) * (h - 4);
  const d = values.map((v, i) => `${i ? 'L' : 'M'}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join('');
  return (
    <svg width={w} height={h} class="spark" aria-hidden="true">
      <path d={`${d}L${w - 2} ${h}L2 ${h}Z`} fill={`var(${color})`} opacity=".13" />
      {limit !== undefined && <path d={`M2 ${y(limit)}H${w - 2}`} class="thr" />}
      <path d={d} fill="none" stroke={`var(${color})`} stroke-width="1.4" />
    </svg>
  );
}

/** align puts series of one range query on one time axis; gaps stay gaps. step is the query's, in seconds. */
export function align(series: { values?: [number, string][] }[], names: string[], every: number): ChartData {
  const all = new Set<number>();
  for (const s of series) for (const [t] of s.values ?? []) all.add(t * 1000);
  const times = [...all].sort((a, b) => a - b);
  const step = every * 1000;
  const full: number[] = [];
  for (const t of times) { // a missing step becomes a point without values
    const last = full.at(-1);
    if (last !== undefined && t - last > step * 1.5) full.push(last + step);
    full.push(t);
  }
  return {
    times: full,
    lines: series.map((s, i) => {
      const by = new Map((s.values ?? []).map(([t, v]) => [t * 1000, Number(v)]));
      return { name: names[i]!, values: full.map(t => { const v = by.get(t); return v === undefined || !Number.isFinite(v) ? null : v; }) };
    }),
  };
}
