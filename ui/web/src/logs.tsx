import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { histogram, iso, type LogStats, merged, values } from './api';
import { Bars } from './bars';
import { count, middle } from './format';
import { Icon } from './icons';
import { useLoad } from './load';
import { none } from './logcontext';
import { Lines } from './loglines';
import { queryOf, term, toggled } from './logquery';
import { Partial } from './parts';
import { Patterns, Words } from './patterns';
import { namespace, param, params, range, set } from './url';

/** Switches choose the view, and what is among the lines. */
export function Switches({ children }: { children?: ComponentChildren }) {
  const kinds = param('view') === 'patterns', events = param('events') !== '0';
  return <>
    <div class="seg" role="group" aria-label="View">
      <button class={kinds ? '' : 'on'} aria-pressed={!kinds} onClick={() => set({ view: null })}>Lines</button>
      <button class={kinds ? 'on' : ''} aria-pressed={kinds} onClick={() => set({ view: 'patterns', live: null, ...none })}>Patterns</button>
    </div>
    <div class="seg" role="group" aria-label="Show">
      <button class={events ? 'on' : ''} aria-pressed={events} onClick={() => set({ events: events ? '0' : null })}>Events</button>
      {children}
    </div>
  </>;
}

export function Logs() {
  const q = param('q');
  const [draft, setDraft] = useState(q);
  useEffect(() => setDraft(q), [q]);
  const only = params('pattern'), without = params('without');
  const asks = [namespace.value && `namespace:${namespace.value}`, param('events') === '0' ? 'kind:log' : '', q, ...only.map(queryOf), ...without.map(p => '-' + queryOf(p))].filter(Boolean), query = asks.join(' ');
  const span = range();
  const hist = useLoad(s => histogram({ query: asks, from: iso(span.from), to: iso(span.to), buckets: '80' }, s), [query]);
  const facets = useLoad(async s => {
    const ask = { query: asks, from: iso(span.from), to: iso(span.to), limit: '8' };
    const fields = ['level', 'namespace', 'pod', 'container', 'node'];
    const got = await Promise.all(fields.map(f => values(f, ask, s)));
    return { stats: got.reduce<LogStats>(merged, {}), fields: fields.map((f, i) => ({ field: f, values: got[i]!.values.filter(v => v.value) })) };
  }, [query]);
  const View = param('view') === 'patterns' ? Patterns : Lines;
  return (
    <div class="logs">
      <form class="qrow" role="search" onSubmit={e => { e.preventDefault(); set({ q: draft.trim(), ...none }); }}>
        <label class="qb">
          <Icon name="search" small />
          <input id="q" aria-label="Search logs" placeholder={'words  "a phrase"  level:>=warn  pod:web-1  -path:/healthz'} value={draft} spellcheck={false} autocomplete="off"
            onInput={e => setDraft(e.currentTarget.value)} />
          <span class="kbd">/</span>
        </label>
        <button class="btn p">Search</button>
        {(only.length > 0 || without.length > 0) && <div class="asked">
          {([['pattern', 'only', only], ['without', 'without', without]] as const).flatMap(([key, word, all]) => all.map(p => (
            <button key={key + p} type="button" class="chip" title={p} aria-label={`Take away: ${word} ${p}`} onClick={() => set({ [key]: all.filter(x => x !== p), ...none })}><span>{word}</span><Words text={p} /><Icon name="x" small /></button>
          )))}
        </div>}
      </form>
      <div class="hist"><Bars buckets={hist.data?.buckets ?? []} from={span.from} to={span.to} height={74} ticks label={`${count(hist.data?.total ?? 0)} lines over time`} /></div>
      <div class="w">
        <aside class="fac" aria-label="Fields">
          {facets.error && facets.error.message !== hist.error?.message && <p class="note" role="status">Not counted: {facets.error.message}</p>}
          {facets.data && <Partial {...facets.data.stats} hidden={[]} copies={[]} />}
          {facets.data?.fields.map(f => f.values.length > 0 && (
            <div key={f.field}>
              <h3>{f.field}<span>{f.values.length}</span></h3>
              {f.values.map(v => {
                const t = term(f.field, v.value), on = q.split(/\s+/).includes(t);
                const share = v.count / Math.max(...f.values.map(x => x.count), 1);
                return (
                  <button key={v.value} class="fv" aria-pressed={on} onClick={() => set({ q: toggled(q, t), ...none })} title={v.value}>
                    <i class={on ? 'bx on' : 'bx'} /><span class={f.field === 'level' ? `lv-${v.value}` : ''}>{f.field === 'pod' ? middle(v.value, 17) : v.value}</span><em>{count(v.count)}</em>
                    <u style={{ width: `${Math.max(2, share * 138)}px` }} />
                  </button>
                );
              })}
            </div>
          ))}
          {q && facets.data && <p class="mut facnote">Counted over all lines of the range, whatever words are searched for.</p>}
        </aside>
        <View asks={asks} q={q} total={hist.data?.total} error={hist.error} counted={hist.data} />
      </div>
    </div>
  );
}
