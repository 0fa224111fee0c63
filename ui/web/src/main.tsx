import './app.css';
import { render } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { login, user, whoami } from './api';
import { Alerts } from './alerts';
import { Dashboards } from './dash';
import { Logo } from './icons';
import { Logs } from './logs';
import { Metrics } from './metrics';
import { Nodes } from './nodes';
import { Overview } from './overview';
import { A, Empty } from './parts';
import { Pod } from './pod';
import { Pods } from './pods';
import { Shell } from './shell';
import { Targets } from './targets';
import './theme';
import { TimeRail } from './trail';
import { path } from './url';

function Page() {
  const p = path.value;
  const pod = /^\/pods\/([^/]+)\/([^/]+)/.exec(p);
  if (p === '/') return <Shell title="Overview" rail={<TimeRail />}><Overview /></Shell>;
  if (p === '/logs') return <Shell title="Logs"><Logs /></Shell>;
  if (p === '/metrics') return <Shell title="Metrics"><Metrics /></Shell>;
  if (p === '/dash' || p.startsWith('/dash/')) return <Shell title="Dashboards"><Dashboards uid={decodeURIComponent(p.slice('/dash/'.length))} /></Shell>;
  if (p === '/alerts') return <Shell title="Alerts"><Alerts /></Shell>;
  if (p === '/nodes') return <Shell title="Nodes"><Nodes /></Shell>;
  if (p === '/targets') return <Shell title={<><A to="/metrics" class="mut">Metrics</A> <span class="mut">/</span> Targets</>}><Targets /></Shell>;
  if (p === '/pods') return <Shell title="Pods"><Pods /></Shell>;
  if (pod) return <Shell title={<><A to="/pods" class="mut">Pods</A> <span class="mut">/ {decodeURIComponent(pod[1]!)} /</span> Story</>}><Pod key={p} ns={decodeURIComponent(pod[1]!)} name={decodeURIComponent(pod[2]!)} /></Shell>;
  return <Shell title="Not here"><Empty>There is no page at <code>{p}</code>. <A to="/">Overview</A></Empty></Shell>;
}

function Login() {
  const [token, setToken] = useState(''), [error, setError] = useState(''), [busy, setBusy] = useState(false);
  const enter = (what: { code: string } | { token: string }) => {
    setBusy(true);
    login(what).catch((e: Error) => setError(e.message)).finally(() => setBusy(false));
  };
  useEffect(() => {
    const code = /^#login=(.+)$/.exec(location.hash)?.[1];
    if (!code) return;
    history.replaceState(null, '', location.pathname + location.search);
    enter({ code });
  }, []);
  return (
    <main class="login"><form onSubmit={e => { e.preventDefault(); enter({ token: token.trim() }); }}>
      <div class="brand"><Logo />perch</div>
      <p class="f2">Open the one-time link that <code>perch up</code> printed, get a new one with <code>perch ui</code>, or paste a token from <code>perch token</code>.</p>
      <input class="find wide" type="password" aria-label="Bearer token" placeholder="Bearer token" value={token} onInput={e => setToken(e.currentTarget.value)} />
      <button class="btn p" disabled={busy || !token.trim()}>Log in</button>
      {error && <div class="problem" role="alert">{error}</div>}
    </form></main>
  );
}

function App() {
  useEffect(() => void whoami(), []);
  if (user.value === undefined) return null;
  return user.value === null ? <Login /> : <Page />;
}

render(<App />, document.getElementById('root')!);
