import type { ComponentChildren } from 'preact';
import { signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { clusterInfo, logout, user, watched } from './api';
import { hm } from './format';
import { Icon, Logo, type IconName } from './icons';
import { useLoad } from './load';
import { condition } from './objects';
import { Palette } from './palette';
import { A } from './parts';
import { loud } from './silences';
import { theme, toggleTheme } from './theme';
import { fromText, go, href, live, namespace, parseTime, path, range, set, toText, zoomOut } from './url';

const pages: [string, string, IconName][] = [['/', 'Overview', 'overview'], ['/alerts', 'Alerts', 'alerts'], ['/logs', 'Logs', 'logs'], ['/metrics', 'Metrics', 'metrics'], ['/dash', 'Dashboards', 'dash'], ['/nodes', 'Nodes', 'nodes'], ['/pods', 'Pods', 'pods']];

const info = signal<Record<string, string> | null>(null);

export function Shell({ title, rail, children }: { title: ComponentChildren; rail?: ComponentChildren; children: ComponentChildren }) {
  const nodes = watched('api/v1/nodes').value, pods = watched('api/v1/pods').value;
  const got = useLoad(loud, []);
  const fired = (got.data?.firing ?? []).filter(x => !x.by).map(x => x.alert);
  const firing = fired.length, mild = fired.every(a => a.labels.severity === 'warning' || a.labels.severity === 'info');
  const bad = (nodes ?? []).filter(n => condition(n, 'Ready')?.status !== 'True').length;
  useEffect(() => {
    if (!info.value) clusterInfo().then(i => (info.value = i), () => {});
  }, []);
  useEffect(() => {
    let g = 0;
    const on = (e: KeyboardEvent) => {
      if (/INPUT|TEXTAREA/.test((e.target as HTMLElement).tagName) || (e.target as HTMLElement).isContentEditable || e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.key === 'Escape' && (document.querySelector('dialog[open]') || document.querySelector('.pop'))) return;
      if (Date.now() - g < 900) {
        const to = { o: '/', a: '/alerts', l: '/logs', m: '/metrics', d: '/dash', n: '/nodes', p: '/pods' }[e.key];
        if (to) { g = 0; e.preventDefault(); go(href(to)); }
      } else if (e.key === 'g') g = Date.now();
      else if (e.key === 'z') zoomOut();
    };
    addEventListener('keydown', on);
    return () => removeEventListener('keydown', on);
  }, []);
  const at = path.value;
  return (
    <div class="app">
      <a class="skip" href="#main">Skip to content</a>
      <aside class="rail">
        <div class="brand"><Logo />perch</div>
        <div class="clus"><span class={`dot ${bad ? 'bad' : 'good'}`} /><div class="cname" title={location.host}>{info.value?.name ?? location.hostname}<small>{nodes ? `${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'}${bad ? `, ${bad} not ready` : ''}` : '…'}</small></div></div>
        <nav class="nav" aria-label="Pages">
          {pages.map(([to, name, icon]) => {
            const on = to === '/' ? at === '/' : at.startsWith(to) || (to === '/metrics' && at === '/targets');
            return <A key={to} to={to} class={on ? 'on' : ''} {...(on ? { 'aria-current': 'page' as const } : {})}><Icon name={icon} /><span>{name}</span>{to === '/alerts' && firing > 0 && <em class={mild ? 'hot mild' : 'hot'}>{firing}</em>}{to === '/nodes' && nodes && <em class={bad ? 'hot' : ''}>{bad ? `${bad} of ${nodes.length}` : nodes.length}</em>}{to === '/pods' && pods && <em>{pods.length}</em>}</A>;
          })}
        </nav>
        <div class="foot">
          <span class="av">{(user.value ?? '?').replace(/^.*:/, '')[0]?.toUpperCase()}</span><span class="who" title={user.value ?? ''}>{(user.value ?? '').replace(/^.*:/, '')}</span>
          <button class="ib" title="Dark or light" aria-label={`Switch to ${theme.value === 'dark' ? 'light' : 'dark'}`} onClick={toggleTheme}><Icon name="sun" /></button>
          <button class="ib" title="Log out" aria-label="Log out" onClick={() => void logout()}><Icon name="out" /></button>
        </div>
      </aside>
      <div class="main">
        <div class="top">
          <h1>{title}</h1><Namespaces />
          <Palette />
          <button class="btn q" aria-label="Zoom out (z)" title="Zoom out (z)" onClick={zoomOut}><Icon name="zoomout" /></button>
          <Time />
          <button class={live.value ? 'btn live' : 'btn'} aria-pressed={live.value} onClick={() => set({ from: 'now-1h', to: null })}><i /><span>{live.value ? 'Live' : 'Go live'}</span></button>
        </div>
        {rail ?? <div />}
        <main class="body" id="main">{children}</main>
      </div>
    </div>
  );
}

function Namespaces() {
  const all = watched('api/v1/namespaces').value;
  return (
    <label class="btn q nspick"><Icon name="filter" small />
      <select aria-label="Namespace" size={1} value={namespace.value} onChange={e => set({ ns: e.currentTarget.value || null })}>
        <option value="">All namespaces</option>
        {(all ?? []).map(n => n.metadata.name).sort().map(n => <option key={n} value={n}>{n}</option>)}
      </select>
    </label>
  );
}

const presets: [string, string][] = [['now-5m', 'Last 5 minutes'], ['now-15m', 'Last 15 minutes'], ['now-1h', 'Last hour'], ['now-6h', 'Last 6 hours'], ['now-24h', 'Last 24 hours'], ['now-7d', 'Last 7 days']];

function Time() {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState('');
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const t = (e: KeyboardEvent) => { if (e.key === 't' && !/INPUT|TEXTAREA|SELECT/.test((e.target as HTMLElement).tagName) && !(e.target as HTMLElement).isContentEditable) { e.preventDefault(); setOpen(true); } if (e.key === 'Escape') setOpen(false); };
    const c = (e: MouseEvent) => { if (!box.current?.contains(e.target as Node)) setOpen(false); };
    addEventListener('keydown', t); addEventListener('mousedown', c);
    return () => { removeEventListener('keydown', t); removeEventListener('mousedown', c); };
  }, []);
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => { if (open) input.current?.focus(); }, [open]); // at once: somebody types already
  const { from, to } = range();
  const preset = presets.find(p => p[0] === fromText.value && toText.value === 'now');
  const typed = (e: Event) => {
    e.preventDefault();
    const s = text.trim(), rel = /^(\d+)\s*([smhdw])$/.exec(s);
    const two = s.split(/\s+(?:to|–|-)\s+/);
    if (rel) set({ from: `now-${rel[1]}${rel[2]}`, to: null });
    else if (two.length === 2 && parseTime(two[0]!) !== null && parseTime(two[1]!) !== null) set({ from: two[0]!, to: two[1]! });
    else { setWrong('write 2h, or two times: 2026-11-20T14:00 to 2026-11-20T15:00'); return; }
    setWrong(''); setOpen(false);
  };
  return (
    <div class="timepick" ref={box}>
      <button class="btn" aria-expanded={open} aria-haspopup="dialog" onClick={() => setOpen(!open)}><Icon name="clock" small />{preset ? preset[1] : `${hm(from)} – ${toText.value === 'now' ? 'now' : hm(to)}`}<Icon name="chev" small /></button>
      {open && <div class="pop" role="dialog" aria-label="Time range">
        <form onSubmit={typed}><input class="find wide" ref={input} aria-label="Time range" placeholder="2h, or time to time" value={text} onInput={e => setText(e.currentTarget.value)} />{wrong && <small class="red">{wrong}</small>}</form>
        {presets.map(([f, name]) => <button key={f} class={preset?.[0] === f ? 'on' : ''} onClick={() => { set({ from: f, to: null }); setOpen(false); }}>{name}</button>)}
      </div>}
    </div>
  );
}
