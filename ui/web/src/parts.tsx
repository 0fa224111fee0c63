// Small parts that several pages share.
import type { ComponentChildren } from 'preact';
import { Problem } from './api';
import { Icon } from './icons';
import { go, href, type Query } from './url';

/** A is a link inside the page: the carried parameters follow it. */
export function A({ to, q, children, ...rest }: { to: string; q?: Query; children: ComponentChildren; class?: string; title?: string; 'aria-current'?: 'page' }) {
  const h = href(to, q);
  return (
    <a href={h} {...rest} onClick={e => {
      if (e.metaKey || e.ctrlKey || e.shiftKey) return;
      e.preventDefault();
      go(h);
    }}>{children}</a>
  );
}

export function Card({ title, sub, side, children, class: cls = '' }: { title: string; sub?: ComponentChildren; side?: ComponentChildren; children: ComponentChildren; class?: string }) {
  return (
    <section class={`card ${cls}`} aria-label={title}>
      <header><h2>{title}</h2>{sub && <span class="mut">{sub}</span>}<span class="sp">{side}</span></header>
      {children}
    </section>
  );
}

export function ErrorBox({ error }: { error: Error }) {
  const at = error instanceof Problem ? error.position : undefined;
  return <div class="problem" role="alert"><Icon name="x" small />{error.message}{at !== undefined && <span class="mut"> (at character {at + 1})</span>}</div>;
}

export const Empty = ({ children }: { children: ComponentChildren }) => <div class="empty">{children}</div>;

export function Partial({ missing, hidden, warnings }: { missing?: string[]; hidden?: string[]; warnings?: string[] }) {
  const notes: string[] = [...(warnings ?? [])];
  if (missing?.length) notes.push(`without ${missing.join(', ')}, which ${missing.length === 1 ? 'does' : 'do'} not answer`);
  if (hidden?.length) notes.push(`${hidden.length} namespaces are not visible to you`);
  return notes.length ? <div class="note" role="status">{notes.join(' · ')}</div> : null;
}
