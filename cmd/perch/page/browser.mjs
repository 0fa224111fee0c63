// One Chromium for all tests: opened with nothing that talks to the outside,
// watched for whatever a browser would complain about.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const need = name => {
  const v = process.env[name];
  if (!v) throw new Error(`set ${name}`);
  return v;
};
export const perch = (...args) => execFileSync(need('PERCH'), args, { encoding: 'utf8', env: { ...process.env, KUBECONFIG: need('KUBECONFIG') }, stdio: ['ignore', 'pipe', 'pipe'] }).trim();
export const out = process.env.PERCH_PAGE_OUT ?? path.join(tmpdir(), 'perch-page');
mkdirSync(out, { recursive: true });

/** link is a fresh one-time link to the page. */
export const link = () => /https:\S+/.exec(perch('ui'))[0];

/** open starts Chromium; complaints fills with what its console says. */
export async function open({ theme = 'dark', width = 1440, height = 900, scale = 1 } = {}) {
  const profile = mkdtempSync(path.join(tmpdir(), 'perch-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    ignoreHTTPSErrors: true,
    viewport: { width, height },
    deviceScaleFactor: scale,
    colorScheme: theme,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  process.on('exit', () => {
    try {
      rmSync(profile, { recursive: true, force: true });
    } catch {} // a child of the browser may still write there
  });
  const dist = process.env.PERCH_PAGE_DIST; // of a build under work, in place of the one in the binary
  if (dist) await context.route(/\/a\/[^/]+$/, r => r.fulfill({ path: path.join(dist, new URL(r.request().url()).pathname) }));
  const page = context.pages()[0] ?? (await context.newPage());
  const complaints = [];
  page.on('console', m => ['error', 'warning'].includes(m.type()) && complaints.push(`${m.type()}: ${m.text()} (${m.location().url})`));
  page.on('pageerror', e => complaints.push(`exception: ${e.stack}`));
  await page.addInitScript(() => addEventListener('securitypolicyviolation', e => console.error(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`)));
  return { context, page, complaints };
}

/** visit opens an address. Links of pods come and go on this machine, which
 * Chromium takes for another network and breaks off what it is loading. */
export async function visit(page, address) {
  for (let n = 0; ; n++) {
    try {
      return await page.goto(address);
    } catch (e) {
      if (n === 5 || !/ERR_NETWORK_CHANGED|interrupted by another navigation/.test(e.message)) throw e;
      await page.waitForTimeout(500);
    }
  }
}

export async function login(page) {
  const l = link();
  await visit(page, l);
  await page.waitForSelector('.rail');
  return new URL(l).origin;
}

const axeSource = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

/** axe names what keeps people from using the page: serious and critical only. */
export async function axe(page) {
  await page.evaluate(axeSource); // by the debugger, which the page's policy does not bind
  const r = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return r.violations.filter(v => ['serious', 'critical'].includes(v.impact)).flatMap(v => v.nodes.map(n => `${v.id}: ${n.target.join(' ')}: ${n.any.concat(n.all, n.none).map(x => x.message).join('; ')}`));
}
