// Small parts that several pages share.
import type { ComponentChildren } from 'preact';
import { type LogStats, Problem } from './api';
import { hms } from './format';
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

/** ErrorBox says what went wrong, and where in the text that was asked. */
export function ErrorBox({ error, text }: { error: Error; text?: string }) {
  const at = error instanceof Problem ? error.position : undefined;
  if (at === undefined || text === undefined) return <div class="problem" role="alert"><Icon name="x" small />{error.message}</div>;
  const before = new TextDecoder().decode(new TextEncoder().encode(text).slice(0, at)); // positions are bytes
  return <div class="problem" role="alert"><Icon name="x" small />{error.message.replace(/^query position \d+: /, '')}<span class="mut"> at character {before.length + 1}:</span> <code>{before.slice(-60)}<mark>{text.slice(before.length, before.length + 20) || '…'}</mark></code></div>;
}

export const Empty = ({ children }: { children: ComponentChildren }) => <div class="empty">{children}</div>;

/** Partial says what an answer lacks, and what is only as of an earlier time. */
export function Partial({ missing, hidden, copies, partial, reason, warnings }: LogStats & { warnings?: string[] }) {
  const notes: string[] = [...(warnings ?? [])];
  if (missing?.length) notes.push(`without ${missing.join(', ')}, which ${missing.length === 1 ? 'does' : 'do'} not answer`);
  for (const c of copies ?? []) notes.push(`${c.node} from its copy at ${c.by}, as of ${hms(Date.parse(c.at))}`);
  const more = partial && reason ? reason.split('; ').filter(r => r !== 'not all nodes answered' && !r.includes('its copy ends at')) : [];
  if (more.length) notes.push(`not whole: ${more.join('; ')}`);
  if (hidden?.length) notes.push(`${hidden.length} namespaces are not visible to you`);
  return notes.length ? <div class="note" role="status">{notes.join(' · ')}</div> : null;
}
