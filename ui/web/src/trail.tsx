// The time rail: the hours around the chosen range, what was loud and what
// fired in them, and the range itself as a window to drag.
import { useRef, useState } from 'preact/hooks';
import { histogram, iso, watched } from './api';
import { errorsOf } from './bars';
import { hm, hms } from './format';
import { useLoad } from './load';
import { withNamespace } from './logquery';
import { alertHistory } from './spans';
import { go, href, namespace, now, range, set } from './url';

type Drag = { kind: 'new' | 'move'; from: number; to: number; at: number };

export function TimeRail() {
  const box = useRef<HTMLDivElement>(null);
  const held = useRef<Drag | null>(null); // a fast hand is quicker than the next drawing
  const [shownDrag, draw] = useState<Drag | null>(null);
  const setDrag = (d: Drag | null) => draw((held.current = d));
  const win = range(), ns = namespace.value;
  const to = Math.max(now(), win.to), from = Math.min(to - Math.max(6 * 36e5, (win.to - win.from) * 2), win.from);
  const got = useLoad(async s => {
    const [h, a] = await Promise.all([
      histogram({ query: withNamespace(''), from: iso(from), to: iso(to), buckets: '180' }, s),
      alertHistory(`alertstate="firing",severity!="none"${ns ? `,namespace="${ns}"` : ''}`, from, to, s),
    ]);
    return { h, a };
  }, []);
  const sets = watched('apis/apps/v1/replicasets').value ?? [];
  const rolled = sets.filter(r => (!ns || r.metadata.namespace === ns) && r.metadata.ownerReferences?.some(o => o.kind === 'Deployment')).map(r => Date.parse(r.metadata.creationTimestamp)).filter(t => t > from);
  const x = (t: number) => ((t - from) / (to - from)) * 1000;
  const shown = shownDrag ?? win;
  const at = (e: PointerEvent) => {
    const b = box.current!.getBoundingClientRect();
    return from + Math.max(0, Math.min(1, (e.clientX - b.left) / b.width)) * (to - from);
  };
  const top = Math.max(1, ...(got.data?.h.buckets ?? []).map(b => b.count));
  const ticks: number[] = [];
  const every = to - from > 20 * 36e5 ? 4 * 36e5 : to - from > 9 * 36e5 ? 36e5 * 2 : 18e5;
  for (let t = Math.ceil(from / every) * every; t < to; t += every) ticks.push(t);
  return (
    <div class="trail"><div class="tin" ref={box} role="group" aria-label={`Time rail: ${hm(from)} to ${hm(to)}, range ${hms(win.from)} to ${hms(win.to)}`}
      onPointerDown={e => {
        const t = at(e);
        box.current!.setPointerCapture(e.pointerId);
        setDrag(t > win.from && t < win.to ? { kind: 'move', ...win, at: t } : { kind: 'new', from: t, to: t, at: t });
      }}
      onPointerMove={e => {
        const drag = held.current;
        if (!drag) return;
        const t = at(e);
        if (drag.kind === 'new') setDrag({ ...drag, from: Math.min(drag.at, t), to: Math.max(drag.at, t) });
        else {
          const by = Math.max(from - win.from, Math.min(to - win.to, t - drag.at));
          setDrag({ ...drag, from: win.from + by, to: win.to + by });
        }
      }}
      onPointerUp={() => {
        const drag = held.current;
        if (drag && drag.to - drag.from > 1e4 && (drag.from !== win.from || drag.to !== win.to)) set({ from: iso(drag.from), to: drag.to > now() - 1e4 ? 'now' : iso(drag.to) });
        setDrag(null);
      }}
      onDblClick={() => go(href('/', { from: null, to: null }))}>
      <svg viewBox="0 0 1000 46" preserveAspectRatio="none" aria-hidden="true">
        {(got.data?.h.buckets ?? []).map((b, i, all) => {
          const t = Date.parse(b.time), w = all[i + 1] ? Date.parse(all[i + 1]!.time) - t : to - t;
          const h = Math.max(1, (Math.sqrt(b.count) / Math.sqrt(top)) * 21), bad = errorsOf(b), warn = b.levels?.warn ?? 0;
          return b.count > 0 && <rect key={b.time} class={bad ? 'b-error' : warn > b.count * 0.02 ? 'b-warn' : 'b-rest'} x={x(t)} y={28 - h} width={Math.max(0.5, (w / (to - from)) * 1000 - 1)} height={h} />;
        })}
        <rect class="shade" x="0" y="0" width={Math.max(0, x(shown.from))} height="46" /><rect class="shade" x={x(shown.to)} y="0" width={Math.max(0, 1000 - x(shown.to))} height="46" />
        <rect class="win" x={x(shown.from)} y="0" width={Math.max(1, x(shown.to) - x(shown.from))} height="46" />
        {(got.data?.a ?? []).flatMap((h, i) => h.spans.map((s, k) => <rect key={`${i}.${k}`} class={h.labels.severity === 'warning' ? 'w' : 'f'} x={x(s.from)} y="30" width={Math.max(2, x(s.to) - x(s.from))} height="3" />))}
      </svg>
      {rolled.map((t, i) => <span key={i} class="roll" style={{ left: `${x(t) / 10}%` }} title={`rolled out ${hms(t)}`}>▲</span>)}
      <i class="grip" style={{ left: `${x(shown.from) / 10}%` }} /><i class="grip" style={{ left: `${x(shown.to) / 10}%` }} />
      {ticks.map(t => x(t) > 15 && x(t) < 985 && <span key={t} class="tick" style={{ left: `${x(t) / 10}%` }}>{hm(t)}</span>)}
    </div></div>
  );
}
