// Comparing with the same hours of an earlier day.

/** spans that can be compared with, by what the address says. */
export const spans: Record<string, { ms: number; words: string; short: string }> = {
  '1d': { ms: 864e5, words: 'a day before', short: 'yesterday' },
  '1w': { ms: 6048e5, words: 'a week before', short: 'last week' },
};

/** nowAndThen is when what is past is asked again: it does not change, but the page's time goes on. */
export const nowAndThen = 60; // beats of the clock
export const ahead = 36e4; // ms that are asked beyond, for the time until then

/** shifted finds the values of a time before, of a question with the same step in seconds, at these times. */
export function shifted(times: number[], values: [number, string][], step: number, by: number): (number | null)[] {
  const old = new Map(values.map(([t, v]) => [t, Number(v)]));
  return times.map(t => old.get(Math.floor((t - by) / 1000 / step) * step) ?? null);
}

/** change in percent, over the times that both have; null when there is nothing to compare with. */
export function change(now: (number | null)[], then: (number | null)[]): number | null {
  let a = 0, b = 0;
  now.forEach((v, i) => { if (v !== null && then[i] != null) { a += v; b += then[i]!; } });
  return b > 0 ? Math.round((a / b - 1) * 100) : null;
}

export const percent = (p: number) => `${p < 0 ? '−' : '+'}${Math.abs(p).toLocaleString('en')} %`;
