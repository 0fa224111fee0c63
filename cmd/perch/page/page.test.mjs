// What a user does with the page, asserted on live data.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { axe, link, login, open, out, perch, visit as openAddress } from './browser.mjs';

const ns = 'pagetest';
let context, page, complaints, base;
before(async () => {
  ({ context, page, complaints } = await open());
  base = await login(page);
});
after(() => context?.close());

const visit = async path => {
  await openAddress(page, base + path);
  await page.waitForSelector('.rail');
};
/** eventually retries a check until it holds; live data come when they come. */
async function eventually(what, check, limit = 15000) {
  let last;
  for (const end = Date.now() + limit; Date.now() < end; await page.waitForTimeout(200)) {
    try {
      const r = await check();
      if (r) return r;
      last = new Error(`got ${r}`);
    } catch (e) {
      last = e;
    }
  }
  throw new Error(`not within ${limit} ms: ${what}: ${last?.message}`);
}
/** here is the address now; page.url() learns of a pushed state later. */
const here = async () => new URL(await page.evaluate(() => location.href));
const text = sel => page.locator(sel).first().innerText();
const objects = (...what) => JSON.parse(perch('get', ...what, '-o', 'json')).items;
const number = expr => Number(perch('query', expr, '-o', 'csv').split('\n').at(-1).split(',').at(-1));
/** quiet says that the console has nothing to complain about. Links of pods
 * come and go on this machine, which Chromium takes for another network. */
const quiet = () => assert.deepEqual(complaints.filter(c => !c.includes('ERR_NETWORK_CHANGED')), []);
const forget = () => (complaints.length = 0);

/** pretendYesterday answers what is asked about yesterday with today: the cluster is younger. */
async function pretendYesterday() {
  const day = 86_400, later = t => String(Number(t) + day), all = '**/prometheus/api/v1/query_range';
  await page.route(all, async r => {
    const form = new URLSearchParams(r.request().postData());
    if (Number(form.get('end')) > Date.now() / 1000 - day / 2) return r.continue();
    const answer = await r.fetch({ postData: new URLSearchParams({ ...Object.fromEntries(form), start: later(form.get('start')), end: later(form.get('end')) }).toString() });
    const body = await answer.json();
    for (const s of body.data.result) for (const v of s.values) v[0] -= day;
    return r.fulfill({ response: answer, json: body });
  });
  return () => page.unroute(all);
}

test('a link logs in once, a token as long as it lives', async () => {
  const other = await open();
  const p = other.page, used = link();
  await openAddress(p, used);
  await p.waitForSelector('.rail');
  assert.equal(new URL(p.url()).hash, '', 'the code does not stay in the address');
  await p.click('[aria-label="Log out"]');
  await p.waitForSelector('.login');
  await p.goto('about:blank');
  await openAddress(p, used);
  await p.waitForSelector('.login [role=alert]');
  assert.match(await p.innerText('.login [role=alert]'), /used already/);
  await p.fill('.login input', 'not-a-token');
  await p.click('.login .btn');
  await p.waitForFunction(() => /unknown or has expired/.test(document.querySelector('.login [role=alert]')?.textContent ?? ''));
  assert.deepEqual(await axe(p), []);
  await p.screenshot({ path: `${out}/login.png` });
  await p.fill('.login input', perch('token', '--data-dir', process.env.PERCH_DIR));
  await p.click('.login .btn');
  await p.waitForSelector('.rail');
  await other.context.close();
});

test('Overview names what needs attention and measures the cluster', async () => {
  forget();
  await visit('/');
  await eventually('hungry is named', async () => /hungry/.test(await text('.attn')));
  await eventually('toobig is named', async () => /toobig/.test(await text('.attn')));
  const running = objects('pods', '-A').filter(p => p.spec.nodeName && !['Succeeded', 'Failed'].includes(p.status.phase)).length;
  await eventually('each pod on a node is in the map', async () => (await page.locator('.map .nm .cell').count()) === running);
  await eventually('memory is what perch query says', async () => {
    const [, v, unit] = /([\d.]+) (KiB|MiB|GiB)/.exec(await text('[aria-label=Memory] .v'));
    const shown = Number(v) * { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }[unit], want = number('sum(container_memory_working_set_bytes{container!=""})');
    return Math.abs(shown - want) < want * 0.35;
  });
  await eventually('three charts', async () => (await page.locator('.r2 canvas').count()) >= 4);
  await eventually('web is among the loudest', async () => /web-/.test(await text('[aria-label="Loudest pods"]')));
  await eventually('the rail shows lines', async () => (await page.locator('.trail rect[class^=b-]').count()) > 0);
  const before = String(await here());
  const rail = await page.locator('.tin').boundingBox();
  await page.mouse.move(rail.x + rail.width * 0.2, rail.y + 20);
  await page.mouse.down();
  await page.mouse.move(rail.x + rail.width * 0.4, rail.y + 20, { steps: 4 });
  await page.mouse.up();
  assert.notEqual(String(await here()), before, 'a drag over the rail chooses a range');
  quiet();
});

test('Overview compares with a day before, colours pods by what is asked, and leads to the moment', async () => {
  forget();
  const end = await pretendYesterday();
  try {
    await visit('/?from=now-15m');
    await eventually('CPU and memory beside the day before', async () => /^[+−]\d+ % vs. yesterday$/.test(await text('[aria-label=CPU] .vs')) && /^[+−]\d % vs. yesterday$/.test(await text('[aria-label=Memory] .vs')), 30_000);
    await page.screenshot({ path: `${out}/overview-yesterday.png` });
  } finally {
    await end();
  }
  const cells = async name => page.locator(`.map .nm .cell[title*="${name}"]`).evaluateAll(all => all.map(c => `${c.classList[1]} ${c.title}`));
  await page.locator('.map').getByRole('button', { name: 'Restarts' }).click();
  await eventually('one that restarts', async () => /map=restarts/.test(String(await here())) && /^v[2-6] .*, [1-9]\d* restarts/.test((await cells('hungry'))[0]) && (await cells('web-')).every(c => /^v1 .*, 0 restarts/.test(c)));
  await page.locator('.map').getByRole('button', { name: 'Age' }).click();
  await eventually('all are of an age', async () => (await page.locator('.map .nm .cell').evaluateAll(all => all.every(c => /, \d+ (s|min|h|d)/.test(c.title)))));
  const tones = await page.locator('.attn .pb .bar').evaluateAll(all => all.map(b => b.classList.contains('red')));
  assert.deepEqual(tones, [...tones].sort((a, b) => Number(b) - Number(a)), 'what is worst comes first');
  await page.locator('[aria-label="Warning events"] .row a', { hasText: 'hungry' }).first().click();
  await eventually('the pod, at that moment', async () => /\/pods\/pagetest\/hungry/.test(String(await here())) && /at=/.test(String(await here())) && /Lines up to/.test(await text('.last h2')));
  const time = page.locator('.lg2 a.t').first();
  await time.waitFor();
  await time.click();
  await eventually('the line, and what is around it', async () => (await here()).pathname === '/logs' && (await page.locator('.lg .cx0:not([hidden])').count()) === 1);
  quiet();
});

test('Logs finds, marks, opens, filters and zooms', async () => {
  forget();
  await visit(`/logs?ns=${ns}&from=now-15m`);
  await eventually('lines of the shop', async () => /order taken/.test(await text('.lg')));
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'q');
  await page.keyboard.type('"order taken" item:ring');
  await page.keyboard.press('Enter');
  await eventually('the phrase is marked', async () => (await page.locator('.lg mark').count()) > 3);
  await eventually('only rings', async () => (await page.locator('.lg .l:not([hidden]) .m').allInnerTexts()).every(m => /ring/.test(m)));
  const shown = Number((await text('.tb .n')).replace(/\D/g, '')), told = perch('logs', 'deploy/web', '-n', ns, '--since', '15m', '-q', '"order taken" item:ring', '--tail', '100000').split('\n').length;
  assert.ok(shown > 0 && Math.abs(told - shown) < 200, `the page counts ${shown}, perch logs ${told}`);

  await page.locator('.lg').focus();
  await page.keyboard.press('k');
  await page.keyboard.press('k');
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.x');
  assert.match(await text('.x .kv'), /pagetest/);
  await page.screenshot({ path: `${out}/logs-line.png` });
  await page.locator('.x [aria-label^="without pod"]').click();
  assert.match(decodeURIComponent(await here()), /-pod:web-/);
  await page.goBack();

  await visit(`/logs?ns=${ns}&from=now-15m&q=level:warn`);
  await eventually('warnings or events', async () => (await page.locator('.lg .lv-warn:not([hidden])').count()) > 0);
  await page.locator('.lg').focus();
  await page.keyboard.press('[');
  await page.keyboard.press(']');

  await visit(`/logs?ns=${ns}&from=now-15m`);
  await eventually('bars', async () => (await page.locator('.hist rect[class^=b-]').count()) > 0);
  const box = await page.locator('.hist svg').boundingBox();
  await page.mouse.move(box.x + box.width * 0.7, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + 40, { steps: 4 });
  await page.mouse.up();
  const u = (await here()), span = Date.parse(u.searchParams.get('to')) - Date.parse(u.searchParams.get('from'));
  assert.ok(Math.abs(span - 180_000) < 20_000, `a fifth of 15 min was chosen, the range is ${span / 1000} s`);
  await page.keyboard.press('z');
  assert.notEqual((await here()).searchParams.get('from'), u.searchParams.get('from'), 'z zooms out');

  await visit(`/logs?ns=${ns}&q=surelynobodywrotethis`);
  await eventually('an empty answer says what was asked', async () => /No line matches/.test(await text('.ls > .empty')));
  await page.screenshot({ path: `${out}/logs-empty.png` });
  quiet();
  await visit(`/logs?ns=${ns}&events=0&q=${encodeURIComponent('"größer" level:>=warn (')}`);
  await eventually('an error shows where, in what was typed', async () => /at character 24:/.test(await text('.problem')));
  forget();
});

test('Logs counts kinds of lines, and a kind leads to its lines', async () => {
  forget();
  await visit(`/logs?ns=${ns}&from=now-15m&events=0`);
  await page.getByRole('button', { name: 'Patterns' }).click();
  const row = page.locator('.pts tbody tr', { hasText: /order refused.*feeder/ });
  await eventually('kinds of lines', async () => (await page.locator('.pts tbody tr').count()) > 8 && (await row.count()) === 1, 90_000); // feeders are refused a few times a minute
  const lists = await page.locator('.pts tbody tr').evaluateAll(all => all.map(r => [...r.cells].map(c => c.innerText)));
  const counts = lists.map(c => Number(c[0].replace(/\D/g, '')));
  assert.deepEqual(counts, [...counts].sort((a, b) => b - a), 'most first');
  assert.ok(lists.every(c => /^\d\d:\d\d:\d\d$/.test(c[3])), 'each has a time');
  assert.match(await row.locator('td').nth(4).innerText(), /perch-demo:1/, 'of its image');
  assert.equal(await page.locator('.pts svg.spark').count(), counts.length, 'and a trend');
  const told = perch('logs', '-n', ns, '--patterns', '--since', '15m', '-q', '"order refused" feeder kind:log');
  assert.match(told, /order refused/, 'the terminal lists it too');
  await page.screenshot({ path: `${out}/logs-patterns.png` });
  assert.deepEqual(await axe(page), []);

  await page.locator('button.pt').first().focus();
  await page.keyboard.press('j');
  const hidden = await page.evaluate(() => document.activeElement.innerText);
  await page.keyboard.press('Shift+Enter');
  await eventually('it is left out', async () => (await here()).searchParams.getAll('without').length === 1 && !(await page.locator('.pts .pt').allInnerTexts()).includes(hidden));
  await page.getByLabel('Take away: without').click();
  await eventually('and back', async () => (await page.locator('.pts .pt').allInnerTexts()).includes(hidden));

  await row.locator('.pt').click();
  await eventually('only its lines', async () => (await page.locator('.lg .l:not([hidden])').count()) > 0 && (await page.locator('.lg .l:not([hidden]) .m').allInnerTexts()).every(m => /order refused.*feeder/.test(m)));
  const shown = Number((await text('.tb .n')).replace(/\D/g, '')), have = perch('logs', '-n', ns, '--since', '15m', '-q', '"order refused" feeder kind:log', '--tail', '100000').split('\n').length;
  assert.ok(shown > 0 && Math.abs(have - shown) < 20, `the page counts ${shown}, perch logs ${have}`);
  await page.goBack();
  await eventually('the kinds again', async () => (await row.count()) === 1);
  await row.locator('.link').click();
  await eventually('the first of them, with what is around it', async () => /order refused/.test(await text('.lg .cx0:not([hidden]) .m')) && (await page.locator('.lg .cx:not([hidden])').count()) > 3);

  await visit(`/logs?ns=${ns}&from=now-20s&events=0&view=patterns`);
  const first = page.locator('.pts tbody tr .link').first(), at = async () => Date.parse((await first.getAttribute('title')).split(': ')[0]);
  await eventually('first seen before the range, of all that is kept', async () => (await at()) < Date.now() - 25e3);
  const seen = await at();
  await first.click();
  await eventually('the line, in a range that has it', async () => {
    const q = (await here()).searchParams;
    return Date.parse(q.get('from')) < seen && seen < Date.parse(q.get('to')) && (await page.locator('.lg .cx0:not([hidden])').count()) === 1;
  });
  quiet();
});

test('what is around a line opens in its place, and goes without a trace', async () => {
  forget();
  const box = page.locator('.lg');
  /** at is how far below the list's top a row stands, px, when all is drawn, and what else could tell why. */
  const at = sel => page.locator(sel).evaluate(async (e, sel) => {
    for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame); // rows are drawn in a frame of their own
    const list = e.closest('.lg'), top = list.getBoundingClientRect().top;
    return { y: document.querySelector(sel).getBoundingClientRect().top - top, why: `row ${document.querySelector(sel).style.transform}, scrolled ${list.scrollTop} of ${list.scrollHeight}, list ${list.clientHeight} high at ${top}, ${[...document.querySelectorAll('.problem')].map(p => p.innerText)}` };
  }, sel);
  await eventually('a screen of rings', async () => {
    await visit(`/logs?ns=${ns}&from=now-15m&q=${encodeURIComponent('"order taken" item:ring')}`);
    return eventually('rings', async () => (await page.locator('.lg .l:not([hidden])').count()) > 20, 5000);
  }, 60_000);
  await box.focus();
  for (let i = 0; i < 12; i++) await page.keyboard.press('j'); // from the first row in view, so that there are rows on both sides
  await page.waitForSelector('.lg .l.sel:not([hidden])');
  const rows = () => page.evaluate(() => parseFloat(document.querySelector('.spacer').style.height) / 20);
  const start = await at('.lg .l.sel:not([hidden])');
  const before = { text: await text('.lg .l.sel:not([hidden])'), top: await box.evaluate(e => e.scrollTop), rows: await rows() };

  await page.keyboard.press('c');
  await page.waitForSelector('.lg .cx0:not([hidden])');
  assert.equal(await text('.lg .cx0:not([hidden])'), before.text, 'the line is in the middle');
  const stays = async when => {
    const now = await at('.lg .cx0:not([hidden])');
    assert.ok(Math.abs(now.y - start.y) < 1, `the line stays in the list, ${when}: was ${JSON.stringify(start)}, is ${JSON.stringify(now)}`);
  };
  await stays('when what is around it opens');
  await eventually('other lines of its container', async () => (await page.locator('.lg .cx:not([hidden]) .m').allInnerTexts()).some(m => !/item=ring/.test(m)));
  const pod = await text('.lg .cx0:not([hidden]) .p');
  assert.ok((await page.locator('.lg .cx:not([hidden]):not(.ask) .p').allInnerTexts()).every(p => p === pod), 'and of no other');
  assert.equal(await rows(), before.rows + 22, 'ten on each side, and two rows that ask for more');
  await page.screenshot({ path: `${out}/logs-context.png` });
  assert.deepEqual(await axe(page), []);

  await page.keyboard.press('Shift+ArrowUp');
  await eventually('twenty more before', async () => (await rows()) === before.rows + 42);
  await stays('with twenty more before it');
  await page.locator('.lg .ask:not([hidden])', { hasText: 'after' }).click();
  await eventually('twenty more after', async () => (await rows()) === before.rows + 62);
  await stays('with twenty more after it');
  await page.locator('.cxbar').getByRole('button', { name: 'workload' }).click();
  await eventually('the lines of the other pod', async () => (await page.locator('.lg .cx:not([hidden]):not(.ask) .p').allInnerTexts()).some(p => p !== pod));

  const link = String(await here()), other = await page.context().newPage();
  for (const part of [/around=[0-9a-f]{16}-\d+/, /scope=workload/, /span=30-30/]) assert.match(link, part);
  await openAddress(other, link);
  await other.waitForSelector('.lg .cx0:not([hidden])');
  assert.equal(await other.locator('.lg .cx0:not([hidden])').innerText(), before.text, 'the address leads there');
  await other.close();

  await box.focus();
  await page.keyboard.press('Escape');
  await eventually('it is gone', async () => (await rows()) === before.rows && (await page.locator('.cxbar').count()) === 0);
  assert.equal(await box.evaluate(e => e.scrollTop), before.top, 'the list is where it was');
  await eventually('on the same line', async () => (await text('.lg .l.sel:not([hidden])')) === before.text);
  assert.doesNotMatch(String(await here()), /around|scope|span/);

  await page.keyboard.press('Enter');
  await page.waitForSelector('.x');
  const id = (await here()).searchParams.get('line');
  assert.match(id, /^[0-9a-f]{16}-\d+$/, 'an open line is in the address');
  await page.keyboard.press('Escape');
  await eventually('closed', async () => (await page.locator('.x').count()) === 0);
  await visit(`/logs?ns=${ns}&from=now-15m&q=${encodeURIComponent('"order refused"')}&line=${id}`);
  await eventually('a line that does not match is shown where it belongs', async () => (await text('.lg .cx0:not([hidden])')) === before.text && (await page.locator('.x').count()) === 1);
  await visit(`/logs?ns=${ns}&from=now-15m&around=0123456789abcdef-7`);
  await eventually('a line that is not there', async () => /not stored any more/.test(await text('.problem')));
  quiet();
});

test('a live tail goes on and does not move a reader who scrolled up', async () => {
  forget();
  await visit(`/logs?ns=${ns}&from=now-15m`);
  await eventually('lines', async () => (await page.locator('.lg .l:not([hidden])').count()) > 20);
  await page.getByRole('button', { name: 'Live tail' }).click();
  const count = async () => page.evaluate(() => parseFloat(document.querySelector('.spacer').style.height) / 20);
  const first = await eventually('a list', async () => (await count()) > 20 && (await count()));
  await eventually('new lines arrive', async () => (await count()) > first + 10);
  await page.locator('.lg').hover();
  const end = await page.evaluate(() => document.querySelector('.lg').scrollTop);
  await page.mouse.wheel(0, -300);
  await eventually('scrolled up', () => page.evaluate(was => document.querySelector('.lg').scrollTop <= was - 200, end));
  await page.evaluate(() => new Promise(done => { // until it has come to rest
    const el = document.querySelector('.lg');
    let was = -1;
    const look = () => (el.scrollTop === was ? done() : ((was = el.scrollTop), setTimeout(look, 200)));
    look();
  }));
  const at = await page.evaluate(() => [document.querySelector('.lg').scrollTop, document.querySelector('.lg .l:not([hidden]) .t').textContent]);
  const then = await count();
  await eventually('more lines arrive', async () => (await count()) > then + 10);
  assert.equal((await page.evaluate(() => document.querySelector('.lg').scrollTop)), at[0], 'the view stays');
  assert.match(await text('.pill'), /new lines/);
  await page.screenshot({ path: `${out}/logs-tail.png` });
  await page.click('.pill');
  await eventually('back at the end', () => page.evaluate(() => { const e = document.querySelector('.lg'); return e.scrollTop + e.clientHeight >= e.scrollHeight - 4; }));
  quiet();
});

test('a live tail that is refused says why, and goes on when it may', async () => {
  await visit(`/logs?ns=${ns}&from=now-15m&events=0`);
  await eventually('lines', async () => (await page.locator('.lg .l:not([hidden])').count()) > 20);
  await page.evaluate(() => (window.tails = []));
  await eventually('all tails that one caller may have', () => page.evaluate(async () => { // until one is refused
    const t = new EventSource('/logs/api/v1/tail?query=*');
    await new Promise(done => (t.onopen = t.onerror = done));
    if (t.readyState === EventSource.OPEN) window.tails.push(t);
    return t.readyState === EventSource.CLOSED;
  }), 60_000);
  await page.getByRole('button', { name: 'Live tail' }).click();
  const why = page.getByText('the live tail stands still');
  assert.match(await why.innerText(), /too many of these requests/);
  await page.screenshot({ path: `${out}/logs-tail-refused.png` });
  const count = () => page.evaluate(() => parseFloat(document.querySelector('.spacer').style.height) / 20), first = await count();
  await page.evaluate(() => window.tails.forEach(t => t.close()));
  await eventually('it goes on', async () => (await why.count()) === 0 && (await count()) > first + 10);
});

test('a live tail of thousands of lines a second repeats none, also after it was away', async () => {
  forget();
  perch('apply', '-f', 'testdata/flood.yaml');
  const nanos = t => BigInt(Date.parse(t.slice(0, 19) + 'Z')) * 1_000_000n + BigInt((/\.(\d+)/.exec(t)?.[1] ?? '').padEnd(9, '0'));
  const rows = () => page.evaluate(() => parseFloat(document.querySelector('.spacer').style.height) / 20);
  const lines = async () => {
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByLabel('Save the lines shown').click()]);
    return readFileSync(await file.path(), 'utf8').trim().split('\n').map(l => JSON.parse(l));
  };
  const cursors = [];
  await page.route('**/logs/api/v1/tail?*', r => {
    cursors.push(BigInt(new URL(r.request().url()).searchParams.get('cursor').split('.')[0]));
    return cursors.length === 1 ? r.fulfill({ contentType: 'text/event-stream', body: ': the door goes away\n\n' }) : r.continue();
  });
  try {
    await eventually('more than the page shows, in less than the tail goes back', async () => {
      await visit(`/logs?ns=${ns}&q=pod:flood&from=now-5m&events=0`);
      await eventually('a full list', async () => (await rows()) === 2000);
      const l = await lines();
      return nanos(l.at(-1).time) - nanos(l[0].time) < 900_000_000n;
    }, 60_000);
    cursors.length = 0;
    await page.getByRole('button', { name: 'Live tail' }).click();
    await eventually('many more', async () => cursors.length >= 2 && (await rows()) > 12_000, 60_000);
    const all = await lines(), first = nanos(all[0].time);
    assert.ok(cursors.every(c => c >= first), `the tail goes on from ${cursors}, the first line that is shown is of ${first}`);
    assert.equal(new Set(all.map(l => l.id)).size, all.length, 'no line comes twice');
    const last = new Map(); // of each stream: an earlier run's pod may have had the name
    for (const l of all) {
      const stream = l.id.split('-')[0], n = Number(/\d+/.exec(l.line)[0]);
      assert.ok(!(n <= last.get(stream)), `line ${n} comes after line ${last.get(stream)}`);
      last.set(stream, n);
    }
  } finally {
    await page.unroute('**/logs/api/v1/tail?*');
    perch('-n', ns, 'delete', 'pod', 'flood', '--wait=false');
  }
  quiet();
});

test('Metrics runs PromQL, draws and lists the series', async () => {
  forget();
  await visit(`/metrics?ns=${ns}&from=now-15m`);
  await page.waitForSelector('.cm-content');
  await page.click('.cm-content');
  await page.keyboard.press('Control+a');
  await page.keyboard.insertText(`sum by (result) (rate(shop_orders_total{namespace="${ns}"}[30s]))`);
  await page.keyboard.press('Escape');
  await page.keyboard.press('Enter');
  await eventually('the orders', async () => /taken/.test(await text('.scrolly table')));
  assert.match(decodeURIComponent(await here()), /shop_orders_total/);
  const last = await eventually('a number', async () => Number(await text('.scrolly tbody td:nth-child(2)')));
  const want = number(`sum(rate(shop_orders_total{namespace="${ns}"}[30s]))`);
  assert.ok(Math.abs(last - want) < want * 0.6, `page ${last}, perch query ${want}`);
  const ink = await page.evaluate(() => {
    const c = document.querySelector('.mp canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let n = 0;
    for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 100 && Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) > 50) n++;
    return n;
  });
  assert.ok(ink > 200, `the chart has ${ink} coloured points`);
  const chart = await page.locator('.mp .u-over').boundingBox();
  await page.mouse.move(chart.x + chart.width * 0.5, chart.y + 50);
  await page.waitForTimeout(100);
  await page.mouse.down();
  await page.mouse.move(chart.x + chart.width * 0.8, chart.y + 50, { steps: 5 });
  await page.mouse.up();
  await eventually('a drag zooms', async () => /^\d{4}-/.test((await here()).searchParams.get('from')));
  await page.goBack();
  await eventually('Back undoes it', async () => (await here()).searchParams.get('from') === 'now-15m');
  await page.getByRole('button', { name: 'vs. last week' }).click();
  await eventually('a week ago there was nothing', async () => /nothing was recorded a week before/.test(await text('.mp .vs')));
  const end = await pretendYesterday();
  try {
    await page.getByRole('button', { name: 'vs. yesterday' }).click();
    await eventually('each beside a day before', async () => /cmp=1d/.test(String(await here())) && /dashed: a day before/.test(await text('.mp .vs')) && (await page.locator('.scrolly tbody td:nth-child(5)').allInnerTexts()).every(t => /^[+−]\d+ %$/.test(t)));
    await page.screenshot({ path: `${out}/metrics-yesterday.png` });
  } finally {
    await end();
  }
  quiet();
  await visit('/metrics?expr=' + encodeURIComponent('sum(rate('));
  await eventually('an error in words', async () => /parse error/.test(await text('.problem')));
  forget();
});

test('Nodes and Targets say what is there and what is not well', async () => {
  forget();
  await visit('/nodes');
  const nodes = objects('nodes');
  await eventually('a row for each node', async () => (await page.locator('.nodes tbody tr').count()) === nodes.length && /● Ready/.test(await text('.nodes tbody tr')));
  const own = objects('pods', '-A').filter(p => p.spec.nodeName === nodes[0].metadata.name && !['Succeeded', 'Failed'].includes(p.status.phase)).length;
  await eventually('its pods', async () => Number((await text('.nodes tbody tr td:nth-child(3)')).split(' ')[0]) === own);
  await eventually('processor, memory and disk', async () => (await page.locator('.nodes [role=meter]').count()) === 3 * nodes.length);
  const used = number('1 - sum(node_memory_MemAvailable_bytes{job="node-exporter"}) / sum(node_memory_MemTotal_bytes{job="node-exporter"})') * 100, shown = Number(await page.locator('.nodes [role=meter]').nth(1).getAttribute('aria-valuenow'));
  assert.ok(Math.abs(used - shown) < 15, `memory: page ${shown} %, perch query ${used} %`);
  await page.screenshot({ path: `${out}/nodes.png` });
  assert.deepEqual(await axe(page), []);

  await visit('/metrics');
  await page.getByRole('link', { name: 'these targets' }).click();
  const rows = page.locator('.page tbody tr');
  await eventually('the control plane', async () => /kube-scheduler/.test((await rows.allInnerTexts()).join(' ')));
  await page.getByLabel('Find a target').fill('web-');
  await eventually('both pods of the shop', async () => (await rows.count()) === 2 && (await rows.allInnerTexts()).every(r => /pagetest\/web-.*● up/s.test(r)));
  await page.screenshot({ path: `${out}/targets.png` });
  assert.deepEqual(await axe(page), []);
  quiet();
});

test('Pods lists what runs; a namespace narrows it', async () => {
  forget();
  await visit('/pods');
  const all = objects('pods', '-A').length;
  await eventually('a row for each pod', async () => (await page.locator('tbody tr').count()) === all);
  await page.getByLabel('Namespace').selectOption(ns);
  await eventually('those of the namespace', async () => (await page.locator('tbody tr').count()) === objects('pods', '-n', ns).length);
  await page.getByLabel('Find a pod').fill('hungry');
  await eventually('one', async () => (await page.locator('tbody tr').count()) === 1);
  assert.match(await text('tbody tr'), /CrashLoopBackOff|OOMKilled|Running|Error/);
  assert.doesNotMatch(await text('tbody tr'), /no limit/, 'it has one, also while nothing was measured');
  await page.click('tbody a');
  await page.waitForSelector('.story');
  quiet();
});

test("a pod's story has its state, numbers, events and lines", async () => {
  forget();
  const web = objects('pods', '-n', ns, '-l', 'app=web')[0].metadata.name;
  await visit(`/pods/${ns}/${web}?from=now-15m`);
  await eventually('it runs', async () => /Running/.test(await text('.story .head')));
  await eventually('memory and CPU', async () => (await page.locator('.lanes canvas').count()) >= 2);
  await eventually('its lines', async () => /order/.test(await text('.lg2')));
  assert.doesNotMatch(await text('.lg2'), /created pod|patched pod/, 'requests to the API are not among them');
  await eventually('instance 1', async () => (await page.locator('.inst').count()) === 1);
  assert.doesNotMatch(await text('.lanes'), /every second/);
  await visit(`/pods/${ns}/${web}?from=now-5m`);
  await eventually('every second of the last minutes', async () => /every second/.test(await text('.lanes')));
  await page.screenshot({ path: `${out}/story-web.png` });
  await visit(`/pods/${ns}/hungry?from=now-15m`);
  await eventually('it was killed', async () => /OOMKilled|exit 137/.test(await text('.story')));
  await eventually('more than one instance', async () => (await page.locator('.inst').count()) > 1);
  await eventually('the alert is on the axis', async () => (await page.locator('.lanes .al').count()) > 0);
  await page.locator('.evd').first().click({ force: true });
  assert.match(String(await here()), /at=/, 'an event pins its moment');
  const pinned = (await here()).searchParams.get('at'), chart = page.locator('.lanes .u-over').first();
  await chart.click({ position: { x: 40, y: 20 } });
  await eventually('so does a click on a chart', async () => ![null, pinned].includes((await here()).searchParams.get('at')));
  assert.equal((await here()).searchParams.get('from'), 'now-15m', 'without a zoom');
  quiet();
});

test('a pod that is gone still has what was recorded', async () => {
  forget();
  await visit(`/pods/${ns}/bygone?from=now-30m`);
  await eventually('it is said to be gone', async () => /gone/.test(await text('.story .head')));
  await eventually('its lines', async () => /\d/.test(await text('.lg2 .l2 .m')));
  await eventually('its numbers', async () => (await page.locator('.lanes canvas').count()) >= 2);
  await eventually('its start', async () => (await page.locator('.inst.ended').count()) >= 1);
  await page.screenshot({ path: `${out}/story-gone.png` });
  quiet();
});

test('Alerts shows the watchdog and silences', async () => {
  forget();
  await visit('/alerts');
  await eventually('the watchdog', async () => /Watchdog/.test(await text('.alerts .left')));
  await eventually('the day', async () => (await page.locator('.day .al').count()) > 3);
  await page.locator('.ai', { hasText: 'hungry' }).first().locator('.main-part').click();
  await eventually('the expression', async () => /increase|kube_pod/.test(await text('.side .code')));
  await page.getByLabel('Why').fill('the page is being tested');
  await page.getByRole('button', { name: 'Silence 1 alert' }).click();
  await eventually('it is silenced', async () => (await page.locator('.ai.silenced').count()) > 0);
  assert.match(perch('alerts'), /./);
  await page.screenshot({ path: `${out}/alerts-silenced.png` });
  await page.locator('.ai.silenced').first().getByRole('button', { name: 'Expire' }).click();
  await eventually('the silence has ended', async () => (await page.locator('.ai.silenced').count()) === 0);
  quiet();
});

test('an alert is taken on, with who and why, and the history has it', async () => {
  forget();
  await visit('/alerts');
  const item = page.locator('.ai', { hasText: 'hungry' }).first();
  await item.locator('.main-part').click();
  await eventually('what it hides', async () => /Hides 1 alert now, would have hidden [1-9]/.test(await text('.act .hides')));
  await page.getByLabel('Why').fill('raising its limit');
  await page.getByRole('button', { name: 'Acknowledge' }).click();
  await eventually('it is taken on', async () => /Taken on\s+until \d\d:\d\d/.test(await text('.ai.silenced .when')));
  await page.locator('.ai.silenced .main-part').first().click();
  await eventually('by whom and why', async () => /raising its limit/.test(await text('.side')));
  await page.screenshot({ path: `${out}/alerts-taken-on.png` });
  assert.match(perch('alerts', 'history'), /silenced by .*perch-admin: acknowledged: raising its limit/);
  const taken = await text('.ai.silenced .main-part b');
  await visit('/');
  await eventually('the overview leaves it out, and says so', async () => /1 silenced/.test(await text('.attn')) && !(await page.locator('.attn .when').allInnerTexts()).some(w => w.endsWith(taken)));
  await page.locator('.attn header a').click();
  await page.waitForSelector('.ai.silenced');
  await page.locator('.ai.silenced').first().getByRole('button', { name: 'Expire' }).click();
  await eventually('it is not any more', async () => (await page.locator('.ai.silenced').count()) === 0);
  await page.getByRole('tab', { name: 'History' }).click();
  await eventually('firing, taken on, ended', async () => {
    const rows = (await page.locator('.hist2 tbody tr').allInnerTexts()).join('\n');
    return /firing\s.*hungry/.test(rows) && /silenced\s.*\n?.*perch-admin: acknowledged: raising its limit/.test(rows) && /silence ended/.test(rows);
  });
  quiet();
});

test('a silence says what it hides before and after it is made', async () => {
  forget();
  await visit('/alerts?tab=silences');
  await page.getByLabel('Matchers').fill('pod="hungry" alertname=~"Pod.*" severity!=');
  await eventually('what is wrong with it', async () => /write label=value/.test(await text('.side .red')));
  await page.getByLabel('Matchers').fill(`pod="hungry" alertname=~"Pod.*" namespace=${ns}`);
  await eventually('what it would hide', async () => /Hides [1-9]\d* alerts? now, would have hidden [1-9]/.test(await text('.side .hides')));
  await page.getByRole('button', { name: 'Until 09:00' }).click();
  await page.getByLabel('Why').fill('eats on purpose');
  await page.getByRole('button', { name: 'Silence', exact: true }).click();
  await eventually('it is in the list', async () => /eats on purpose/.test(await text('.alerts .left tbody')));
  await eventually('with what it hides', async () => /Hides [1-9]/.test(await text('.alerts .left tbody')));
  assert.match(perch('silence'), /pod="hungry".*eats on purpose/);
  assert.match(await text('.alerts .left tbody tr:has-text("eats on purpose")'), /09:00/, 'until the morning');
  await page.route('**/alertmanager/api/v2/silence/*', r => r.fulfill({ status: 403, json: { message: 'you may not end silences' } }));
  await page.locator('.alerts .left tbody tr', { hasText: 'eats on purpose' }).getByRole('button', { name: 'Expire' }).click();
  await eventually('why it cannot be ended', async () => /you may not end silences/.test(await text('.left .problem')));
  await page.unroute('**/alertmanager/api/v2/silence/*');
  forget(); // the refusal
  await page.screenshot({ path: `${out}/silences.png` });
  await page.locator('.alerts .left tbody tr', { hasText: 'eats on purpose' }).getByRole('button', { name: 'Expire' }).click();
  await eventually('it has ended', async () => !/eats on purpose/.test(await text('.alerts .left')));
  quiet();
});

test('a rule says how often it would have fired, as perch rules backtest does', async () => {
  forget();
  await visit('/alerts?tab=rules');
  await page.getByLabel('Find a rule').fill('PodContainerRestarted');
  await page.locator('button.link', { hasText: 'PodContainerRestarted' }).click();
  await page.getByRole('button', { name: '1 day' }).click();
  const times = await eventually('an answer', async () => /^([1-9]\d*) time/.exec(await text('.backtest p'))?.[1]);
  const expr = 'sum by (namespace, pod, container, node) (increase(kube_pod_container_status_restarts_total{job="kube-state-metrics"}[5m])) > 0';
  assert.equal(await text('.side .code'), expr);
  const told = perch('rules', 'backtest', '-e', expr, '--since', '1d').split('\n').at(-1).split(/ {2,}/);
  assert.equal(times, told[1], told.join(' | '));
  await page.screenshot({ path: `${out}/rules-backtest.png` });
  await page.getByLabel('Close').click();
  await page.getByLabel('Expression', { exact: true }).fill('sum(rate(');
  await page.getByRole('button', { name: '1 day' }).click();
  await eventually('an error in words', async () => /parse error/.test(await text('.backtest .problem')));
  forget();
});

test('Dashboards draws every panel of what is shipped', async () => {
  forget();
  await visit('/dash');
  const boards = objects('configmaps', '-n', 'kube-system', '-l', 'grafana_dashboard');
  await eventually('a card for each', async () => (await page.locator('.dcard').count()) === boards.length);
  await page.setViewportSize({ width: 1440, height: 4000 });
  for (const b of boards) {
    const { uid, panels } = JSON.parse(Object.values(b.data)[0]);
    await visit(`/dash/${uid}?from=now-5m`);
    const want = panels.filter(p => p.type !== 'row').length;
    await eventually(`every panel of ${uid} shows something`, async () => {
      const bare = await page.locator('.panel').evaluateAll(all => all.filter(p => !p.querySelector('canvas, .stat b, tbody tr')).map(p => p.getAttribute('aria-label')));
      assert.deepEqual(bare, []);
      return (await page.locator('.panel').count()) === want;
    }, 30000);
    await page.screenshot({ path: `${out}/dash-${uid}.png` });
  }
  await page.setViewportSize({ width: 1440, height: 900 });
  await visit('/dash/perch-pods?from=now-5m');
  await page.getByLabel('Namespace').selectOption(ns);
  await page.getByLabel('Pod', { exact: true }).selectOption('hungry');
  await eventually('one pod', async () => (await text('.stat b')) === '1');
  quiet();
});

test('the keyboard goes everywhere, and time, theme and namespace stay', async () => {
  forget();
  await visit(`/?ns=${ns}`);
  await page.locator('body').press('g');
  await page.keyboard.press('l');
  await eventually('Logs', async () => (await here()).pathname === '/logs');
  assert.equal((await here()).searchParams.get('ns'), ns);
  await page.locator('body').press('t');
  await page.waitForSelector('.pop');
  await page.keyboard.type('2h');
  await page.keyboard.press('Enter');
  await eventually('two hours', async () => (await here()).searchParams.get('from') === 'now-2h');
  await page.keyboard.press('Control+k');
  await page.keyboard.type('hungry');
  await page.screenshot({ path: `${out}/palette.png` });
  await page.keyboard.press('Enter');
  await eventually('the pod', async () => (await here()).pathname === `/pods/${ns}/hungry`);
  assert.equal((await here()).searchParams.get('from'), 'now-2h', 'the range follows');
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.click('[aria-label^="Switch to"]');
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), dark);
  await page.reload();
  await page.waitForSelector('.rail');
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), dark, 'the choice is kept');
  await page.click('[aria-label^="Switch to"]');
  quiet();
});

const pages = { overview: '/', logs: `/logs?ns=${ns}&from=now-15m`, metrics: `/metrics?ns=${ns}&from=now-15m`, pods: '/pods', story: `/pods/${ns}/hungry?from=now-15m`, alerts: '/alerts',
  silences: '/alerts?tab=silences', rules: '/alerts?tab=rules', nodes: '/nodes', targets: '/targets', patterns: `/logs?ns=${ns}&from=now-15m&view=patterns`, history: '/alerts?tab=history', dashboards: '/dash', dashboard: '/dash/perch-nodes?from=now-15m' };
for (const theme of ['dark', 'light']) {
  test(`nothing seriously hinders anybody, ${theme}`, async () => {
    forget();
    await page.evaluate(t => localStorage.setItem('theme', t), theme);
    for (const [name, path] of Object.entries(pages)) {
      const more = /^(silences|rules|history|dashboards|dashboard|nodes|targets|patterns)$/.test(name);
      for (const [width, height] of more ? [[1440, 900], [720, 900]] : [[1440, 900], [1100, 900], [720, 900]]) {
        await page.setViewportSize({ width, height });
        await visit(path);
        await page.waitForTimeout(width === 1440 ? 2000 : 900);
        await page.screenshot({ path: `${out}/${name}-${theme}-${width}.png` });
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.querySelector('.top').scrollWidth <= document.querySelector('.top').clientWidth + 1), `${name} is wider than ${width}`);
        if (width !== 1440) continue;
        assert.deepEqual(await axe(page), [], `${name}, ${theme}`);
        for (const w of [1920, 1280]) {
          await page.setViewportSize({ width: w, height });
          await eventually(`nothing of ${name} runs over at ${w}`, async () => { // charts follow a frame later, or more where the machine is busy
            const over = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('.card, .top, .tb, .side, .rail')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label') ?? e.className));
            assert.deepEqual(over, []);
            return true;
          });
        }
      }
    }
    await page.setViewportSize({ width: 1440, height: 900 });
    quiet();
  });
}

test('the page is small', async () => {
  const js = Buffer.from(await page.evaluate(() => fetch('/a/app.js').then(r => r.text())));
  assert.ok(gzipSync(js).length < 120_000, `app.js has ${gzipSync(js).length} bytes compressed`);
});
