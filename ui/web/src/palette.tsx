// Jump anywhere: pages, pods, namespaces, actions, or the words as a search.
import { useEffect, useRef, useState } from 'preact/hooks';
import { logout, watched } from './api';
import { Icon, type IconName } from './icons';
import { podState } from './objects';
import { toggleTheme } from './theme';
import { go, href, set } from './url';

type Choice = { icon: IconName; name: string; hint: string; run: () => void };

const places: [string, string, IconName, string][] = [['Overview', '/', 'overview', 'g o'], ['Alerts', '/alerts', 'alerts', 'g a'], ['Logs', '/logs', 'logs', 'g l'], ['Metrics', '/metrics', 'metrics', 'g m'], ['Dashboards', '/dash', 'dash', 'g d'], ['Nodes', '/nodes', 'nodes', 'g n'], ['Targets', '/targets', 'metrics', ''], ['Pods', '/pods', 'pods', 'g p']];

export function Palette() {
  const box = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState(''), [on, setOn] = useState(0);
  const pods = watched('api/v1/pods').value ?? [], spaces = watched('api/v1/namespaces').value ?? [];
  const show = () => { setText(''); setOn(0); if (!box.current!.open) box.current!.showModal(); };
  useEffect(() => {
    const key = (e: KeyboardEvent) => {
      if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'k') { e.preventDefault(); show(); }
    };
    addEventListener('keydown', key);
    return () => removeEventListener('keydown', key);
  }, []);
  const all: Choice[] = [
    ...places.map(([name, to, icon, hint]) => ({ name, icon, hint, run: () => go(href(to)) })),
    ...pods.map(p => ({ icon: 'pods' as const, name: `${p.metadata.namespace}/${p.metadata.name}`, hint: podState(p).word, run: () => go(href(`/pods/${p.metadata.namespace}/${p.metadata.name}`)) })),
    ...spaces.map(n => ({ icon: 'filter' as const, name: `Only namespace ${n.metadata.name}`, hint: 'namespace', run: () => set({ ns: n.metadata.name }) })),
    { icon: 'filter', name: 'All namespaces', hint: 'namespace', run: () => set({ ns: null }) },
    { icon: 'sun', name: 'Switch between dark and light', hint: 'action', run: toggleTheme },
    { icon: 'x', name: 'Log out', hint: 'action', run: () => void logout() },
  ];
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.filter(c => words.every(w => c.name.toLowerCase().includes(w))).slice(0, 11);
  if (text.trim()) found.push({ icon: 'search', name: `Search logs for ${text.trim()}`, hint: 'Logs', run: () => go(href('/logs', { q: text.trim() })) });
  const pick = (c?: Choice) => { if (c) { box.current!.close(); c.run(); } };
  return (
    <>
      <button class="omni" onClick={show}><Icon name="search" small /><span>Search or jump to…</span><span class="kbd">Ctrl K</span></button>
      <dialog class="palette" ref={box} aria-label="Search or jump to" onClick={e => e.target === box.current && box.current!.close()}>
        <input aria-label="Search or jump to" role="combobox" aria-expanded="true" aria-controls="found" aria-activedescendant={`found-${on}`} placeholder="A page, a pod, a namespace, or words to search for" value={text} spellcheck={false}
          onInput={e => { setText(e.currentTarget.value); setOn(0); }}
          onKeyDown={e => {
            if (e.key === 'ArrowDown') { e.preventDefault(); setOn(Math.min(found.length - 1, on + 1)); }
            else if (e.key === 'ArrowUp') { e.preventDefault(); setOn(Math.max(0, on - 1)); }
            else if (e.key === 'Enter') { e.preventDefault(); pick(found[on]); }
          }} />
        <div id="found" role="listbox" aria-label="Found">
          {found.map((c, i) => <div key={c.name} id={`found-${i}`} role="option" aria-selected={i === on} class={i === on ? 'on' : ''} onMouseMove={() => setOn(i)} onClick={() => pick(c)}><Icon name={c.icon} small /><span>{c.name}</span><em>{c.hint}</em></div>)}
        </div>
      </dialog>
    </>
  );
}
