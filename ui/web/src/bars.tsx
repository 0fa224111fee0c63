// Counts over time, stacked by level: the histogram of Logs, lanes of other pages.
import { useRef, useState } from 'preact/hooks';
import type { Bucket } from './api';
import { count, hm, hms } from './format';
import { zoom } from './url';

type Props = { buckets: Bucket[]; from: number; to: number; height: number; label: string; ticks?: boolean; only?: 'error' };

export const errorsOf = (b: Bucket) => (b.levels?.error ?? 0) + (b.levels?.fatal ?? 0);

/** Bars of buckets; a drag over them zooms the whole page. */
export function Bars({ buckets, from, to, height: H, label, ticks }: Props) {
  // The drag itself is in a ref: a fast hand is quicker than the next drawing.
  const held = useRef<[number, number] | null>(null);
  const [drag, draw] = useState<[number, number] | null>(null);
  const setDrag = (d: [number, number] | null) => draw((held.current = d));
  const top = Math.max(1, ...buckets.map(b => b.count));
  const at = (e: MouseEvent) => {
    const box = (e.currentTarget as SVGElement).getBoundingClientRect();
    return Math.max(0, Math.min(1, (e.clientX - box.left) / box.width));
  };
  const time = (f: number) => from + (to - from) * f;
  const word = to - from < 6e5 ? hms : hm;
  const chosen = drag && ([...drag].sort((a, b) => a - b) as [number, number]);
  return (
    <div class="bars">
      <svg viewBox={`0 0 1200 ${H}`} preserveAspectRatio="none" height={H} role="img" aria-label={label}
        onMouseDown={e => { e.preventDefault(); setDrag([at(e), at(e)]); }}
        onMouseMove={e => held.current && setDrag([held.current[0], at(e)])}
        onMouseUp={() => {
          const [a, b] = [...(held.current ?? [0, 0])].sort((x, y) => x - y) as [number, number];
          if (b - a > 0.005) zoom(time(a), time(b));
          setDrag(null);
        }}
        onMouseLeave={() => setDrag(null)}>
        <path class="grid" d={`M0 ${H / 3}H1200M0 ${(2 * H) / 3}H1200`} />
        {buckets.map((b, i) => {
          const t = Date.parse(b.time), next = buckets[i + 1] ? Date.parse(buckets[i + 1]!.time) : to;
          const x = ((t - from) / (to - from)) * 1200, w = Math.max(1, ((next - t) / (to - from)) * 1200 - 1.6);
          const errors = errorsOf(b), warns = b.levels?.warn ?? 0;
          let y = H;
          return ([['rest', b.count - errors - warns], ['warn', warns], ['error', errors]] as const).map(([cls, n]) => {
            const h = (n / top) * (H - 6);
            y -= h;
            return n > 0 && <rect key={cls} class={`b-${cls}`} x={x} y={Math.min(y, H - 1)} width={w} height={Math.max(1, h - 0.4)}><title>{`${hms(t)}: ${count(n)} ${cls === 'rest' ? 'other' : cls}`}</title></rect>;
          });
        })}
        {chosen && <rect class="sel" x={chosen[0] * 1200} y="0" width={(chosen[1] - chosen[0]) * 1200} height={H} />}
      </svg>
      {ticks && <div class="ticks">{[0, 1, 2, 3, 4, 5, 6, 7, 8].map(k => <span key={k}>{word(time(k / 8))}</span>)}
        {chosen && chosen[1] - chosen[0] > 0.005 && <b style={{ left: `${((chosen[0] + chosen[1]) / 2) * 100}%` }}>{hms(time(chosen[0]))} – {hms(time(chosen[1]))}</b>}</div>}
    </div>
  );
}
