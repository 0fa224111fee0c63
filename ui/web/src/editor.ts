// The PromQL editor: CodeMirror, loaded only when a page needs it.
import { autocompletion, completionKeymap, closeBrackets } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { HighlightStyle, syntaxHighlighting } from '@codemirror/language';
import { lintKeymap } from '@codemirror/lint';
import { EditorState, Prec } from '@codemirror/state';
import { EditorView, keymap, placeholder } from '@codemirror/view';
import { tags } from '@lezer/highlight';
import { PromQLExtension } from '@prometheus-io/codemirror-promql';

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.function(tags.variableName)], color: 'var(--vio)' },
  { tag: tags.labelName, color: 'var(--k)' },
  { tag: tags.string, color: 'var(--s)' },
  { tag: [tags.number, tags.unit], color: 'var(--n)' },
  { tag: tags.comment, color: 'var(--fg3)' },
]);

// Typing over a selection is done here, not by the browser: Chromium would keep
// the old text's look in a style attribute, which the page's policy forbids.
const replaces = EditorView.domEventHandlers({
  beforeinput(e, view) {
    const { from, to } = view.state.selection.main, text = e.data;
    if (e.inputType !== 'insertText' || !text || from === to || view.composing) return false;
    const insert = () => view.state.update({ changes: { from, to, insert: text }, selection: { anchor: from + text.length }, userEvent: 'input.type', scrollIntoView: true });
    if (!view.state.facet(EditorView.inputHandler).some(h => h(view, from, to, text, insert))) view.dispatch(insert());
    e.preventDefault();
    return true;
  },
});

export function mountEditor(parent: HTMLElement, text: string, run: (text: string) => void): EditorView {
  const promql = new PromQLExtension().setComplete({
    remote: { url: '/prometheus', fetchFn: (input, init) => fetch(input, init), httpMethod: 'POST', httpErrorHandler: () => {} },
  });
  return new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      extensions: [
        EditorView.cspNonce.of(document.querySelector<HTMLMetaElement>('meta[name=csp-nonce]')!.content),
        EditorView.contentAttributes.of({ 'aria-label': 'PromQL expression' }),
        history(), replaces, closeBrackets(), autocompletion(), syntaxHighlighting(colours), promql.asExtension(), placeholder('a PromQL expression; Enter runs it'),
        EditorView.lineWrapping,
        Prec.highest(keymap.of([{ key: 'Enter', run: v => { run(v.state.doc.toString()); return true; } }])),
        keymap.of([...defaultKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap]),
        EditorView.theme({ '&': { fontSize: '13px', flex: '1', minWidth: '0' }, '.cm-content': { fontFamily: 'var(--mono)', fontVariantLigatures: 'none', padding: '8px 0', caretColor: 'var(--acct)' }, '&.cm-focused': { outline: 'none' }, '.cm-tooltip': { background: 'var(--raise)', border: '1px solid var(--line2)' } }),
      ],
    }),
  });
}
