// What pages write in the query language of logs.
import { namespace } from './url';

/** withNamespace adds the page's namespace to the user's query. */
export function withNamespace(q: string, ns = namespace.value): string {
  const parts = [ns && `namespace:${ns}`, q && (ns ? `(${q})` : q)].filter(Boolean);
  return parts.join(' ');
}

/** term writes field:value so that the query language takes it as one value. */
export const term = (field: string, value: string) => `${field}:${/^[\w./-]+$/.test(value) ? value : JSON.stringify(value)}`;

/** toggled adds a term to a query, or takes it away. */
export function toggled(q: string, t: string): string {
  const words = q.split(/\s+/).filter(Boolean);
  const i = words.indexOf(t);
  if (i >= 0) words.splice(i, 1);
  else words.push(t);
  return words.join(' ');
}

const literal = (s: string) => s.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** highlightOf finds the plain words of a query, which are marked in the lines. */
export function highlightOf(q: string): RegExp | null {
  const words = [...q.matchAll(/"([^"]+)"|(?:^|\s)([^\s:"()-][^\s:"()]*)(?=\s|$)/g)]
    .map(m => m[1] ?? m[2]!).filter(w => w && !/^(and|or|not)$/i.test(w)).map(w => w.replace(/\*$/, ''));
  return words.length ? new RegExp(words.map(literal).join('|'), 'gi') : null;
}

/** variable stands in a pattern for a word with a digit in it. */
export const variable = '<*>';
const word = '[\\w\\x{80}-\\x{10FFFF}]*';
const longest = 512; // bytes of a pattern; what is longer is cut there

/** queryOf finds the lines of a pattern: those whose first line is the pattern's. */
export function queryOf(pattern: string): string {
  const cut = new TextEncoder().encode(pattern).length >= longest;
  const parts = (cut ? pattern.replace(/<\*?$/, '') : pattern).split(variable).map(p => literal(p).replace(/\ufffd/g, '\ufffd+'));
  const re = `^${parts.join(`${word}\\d${word}`)}${cut ? '' : '(\\n|$)'}`;
  return `~"${re.replace(/["\\]/g, '\\$&')}"`;
}
