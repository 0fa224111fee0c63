// The lines that match, the live tail, and what is around a line.
import { useEffect, useRef, useState } from 'preact/hooks';
import { around, iso, type Line, lines, type LogStats, merged, scopes } from './api';
import { count, hms, hmsMillis, middle } from './format';
import { Icon } from './icons';
import { context, drop, lift, useContext, widen } from './logcontext';
import { Detail } from './logdetail';
import { isEvent, LogList } from './loglist';
import { highlightOf } from './logquery';
import { Switches } from './logs';
import { Empty, ErrorBox, Partial } from './parts';
import { tail } from './tail';
import { fromText, go, href, live, param, range, set, toText, url } from './url';

const pageSize = 2000;

export function Lines({ asks, q, total, error, counted }: { asks: string[]; q: string; total?: number; error?: Error; counted?: LogStats }) {
  const query = asks.join(' ');
  const box = useRef<HTMLDivElement>(null);
  const list = useRef<LogList | null>(null);
  const [shown, setShown] = useState(0);
  const [trail, setTrail] = useState<LogStats>({}), [notes, setNotes] = useState<string[]>([]), [stuck, setStuck] = useState('');
  const [problem, setProblem] = useState<Error | undefined>();
  const [busy, setBusy] = useState(true);
  const [took, setTook] = useState(0);
  const [open, setOpen] = useState<Line | null>(null);
  const [waiting, setWaiting] = useState(0);
  const [raw, setRaw] = useState(false), events = param('events') !== '0';
  const turn = useRef(0), [loaded, setLoaded] = useState(0);
  const tailing = url.value.searchParams.get('live') === '1', line = param('line');

  useEffect(() => {
    const l = (list.current = new LogList(box.current!));
    l.onOpen = x => { setOpen(x); set({ line: x.id ?? null }, true); };
    l.onMore = widen;
    l.onPinned = p => p && setWaiting(0);
    const key = (e: KeyboardEvent) => {
      if (/INPUT|TEXTAREA|SELECT/.test((e.target as HTMLElement).tagName) || e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open], .pop')) return;
      const of = l.chosen;
      if (e.key === '/') { e.preventDefault(); document.getElementById('q')?.focus(); }
      else if (e.key === 'Escape') { param('line') ? set({ line: null }, true) : context() && drop(); box.current!.focus(); }
      else if (e.key === 'c' && of) { lift(of); box.current!.focus(); }
      else if (e.key === 's' && of?.pod) go(href(`/pods/${of.namespace}/${of.pod}`, { at: of.time }));
      else if (e.key === 'e') set({ events: param('events') === '0' ? null : '0' });
    };
    addEventListener('keydown', key);
    return () => { removeEventListener('keydown', key); l.destroy(); };
  }, []);
  useEffect(() => {
    list.current!.raw = raw;
    list.current!.refresh();
  }, [raw]);

  // A new query, range or namespace asks anew; the beat of the clock does not move the reader's list.
  useEffect(() => {
    const l = list.current!, stop = new AbortController(), { from, to } = range();
    l.clear();
    l.highlight = highlightOf(q);
    setShown(0); setTrail({}); setNotes([]); setStuck(''); setProblem(undefined); setBusy(true); setWaiting(0); setLoaded(0);
    const began = performance.now();
    const got: Line[] = [];
    let end = () => {};
    lines({ query: asks, from: iso(from), to: iso(to), limit: String(pageSize), order: 'desc' }, batch => got.push(...batch), stop.signal)
      .then(t => setTrail(t))
      .catch((e: Error) => e.name !== 'AbortError' && setProblem(e))
      .finally(() => {
        if (stop.signal.aborted) return;
        l.prepend(got.reverse());
        setShown(l.lines.length); setTook(performance.now() - began); setBusy(false); setLoaded(++turn.current);
        if (tailing) end = tail(asks, l.lines, l.lines.length >= pageSize, {
          take: batch => {
            l.append(batch);
            if (!l.pinned) setWaiting(n => n + batch.length);
            setShown(l.lines.length);
          },
          say: words => setNotes(n => [...new Set([...n, words])].slice(-3)),
          stuck: setStuck,
        });
      });
    return () => { stop.abort(); end(); };
  }, [query, q, fromText.value, toText.value, tailing]);

  const lifted = useContext(() => list.current!, loaded);
  // A line in the address: open it, and bring it into view when the page comes with it.
  useEffect(() => {
    if (!line) setOpen(null);
    if (!line || !loaded || open?.id === line) return;
    const have = list.current!.lines.find(x => x.id === line);
    if (have) {
      if (!context()) list.current!.reveal(line);
      return setOpen(have);
    }
    const stop = new AbortController();
    around(line, 'stream', 0, 0, stop.signal).then(got => {
      setOpen(got.lines[0] ?? null);
      if (got.lines[0] && !context()) set({ around: line }, true); // it is not among the newest: show it where it belongs
    }, () => {});
    return () => stop.abort();
  }, [line, loaded]);

  const older = async () => {
    const l = list.current!, first = l.lines[0];
    if (!first || busy) return;
    setBusy(true);
    const { from } = range();
    const got: Line[] = [];
    try {
      const next = trail.cursor;
      setTrail(merged(trail, await lines({ query: asks, from: iso(from), to: first.time, limit: String(pageSize), order: 'desc', ...(next ? { cursor: next } : {}) }, b => got.push(...b), new AbortController().signal)));
      l.prepend(got.reverse());
      setShown(l.lines.length);
    } catch (e) {
      setProblem(e as Error);
    }
    setBusy(false);
  };

  const failed = problem ?? error, at = context();
  const more = total !== undefined && shown < total && shown >= pageSize;
  return (
    <div class="ls">
      <div class="tb">
        <span class="n" role="status">{count(Math.max(total ?? 0, shown))} lines</span>
        <span class="mut">{busy ? 'searching…' : shown < (total ?? 0) ? `newest ${count(shown)} shown, ${took.toFixed(0)} ms` : `${took.toFixed(0)} ms`}</span>
        {more && <button class="btn sm" onClick={older} disabled={busy}>Older</button>}
        <Partial {...merged(trail, counted ?? {})} warnings={stuck ? [...notes, `the live tail stands still and is tried again: ${stuck}`] : notes} />
        <span class="sp" />
        <Switches>
          <button class={raw ? 'on' : ''} aria-pressed={raw} onClick={() => setRaw(!raw)}>As written</button>
        </Switches>
        <button class="btn q sm" aria-label="Save the lines shown" title="Save the lines shown" onClick={() => save(list.current!.lines)}><Icon name="save" small /></button>
        <button class={tailing ? 'btn sm live' : 'btn sm'} aria-pressed={tailing} disabled={!live.value} title={live.value ? '' : 'the range ends in the past'} onClick={() => set({ live: tailing ? null : '1' })}><i />Live tail</button>
      </div>
      {at && <div class="cxbar" role="region" aria-label="Context">
        <span>{lifted.of ? <>All around <b>{hmsMillis(Date.parse(lifted.of.time))}</b> of the same</> : lifted.busy ? 'asking what is around…' : 'Context'}</span>
        <div class="seg" role="group" aria-label="Around it">{scopes.map(s => <button key={s} class={s === at.scope ? 'on' : ''} aria-pressed={s === at.scope} onClick={() => set({ scope: s }, true)}>{s}</button>)}</div>
        {lifted.of?.pod && <span class="mut who">{middle(lifted.of.pod, 40)}</span>}
        {lifted.stats && <Partial {...lifted.stats} />}
        <span class="sp" />
        <button class="btn q sm" onClick={() => { drop(); box.current!.focus(); }}><kbd>Esc</kbd>Back to the matches</button>
      </div>}
      {lifted.error && <ErrorBox error={lifted.error} />}
      {failed && <ErrorBox error={failed} text={q} />}
      <div class="lg" ref={box} tabIndex={0} role="log" aria-label="Log lines" />
      {!busy && !failed && shown === 0 && !at && <Empty>No line matches{query && <> <code>{query}</code></>} between {hms(range().from)} and {hms(range().to)}. {q && <button class="btn sm" onClick={() => set({ from: 'now-24h', to: 'now' })}>Look in the last 24 hours</button>}</Empty>}
      {waiting > 0 && <button class="pill" onClick={() => { setWaiting(0); list.current!.toEnd(); }}><Icon name="down" small />{count(waiting)} new lines</button>}
      {open && line && <Detail line={open} close={() => { set({ line: null }, true); box.current!.focus(); }} context={() => { lift(open); box.current!.focus(); }} />}
      <div class="keys"><kbd>j</kbd><kbd>k</kbd> move <kbd>Enter</kbd> open <kbd>c</kbd> context <kbd>s</kbd> story <kbd>]</kbd><kbd>[</kbd> next error <kbd>G</kbd> newest <kbd>e</kbd> events <kbd>/</kbd> search<span class="sp">{events && `${count(list.current?.lines.filter(isEvent).length ?? 0)} events among ${count(shown)} lines`}</span></div>
    </div>
  );
}

function save(lines: Line[]) {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob(lines.map(l => JSON.stringify(l) + '\n'), { type: 'application/x-ndjson' }));
  a.download = 'lines.ndjson';
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}
