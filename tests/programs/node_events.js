// Node: timers, a watched file, child processes, work in the thread pool; every result is checked.  The count of rounds is
// in the file "beat".
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const { spawn } = require('child_process');

const say = (line) => fs.writeSync(2, line + '\n');
const beat = fs.openSync('beat', 'w+');
const expected = crypto.pbkdf2Sync('secret', 'salt', 500, 32, 'sha256').toString('hex');
let rounds = 0, failed = false, noticed = null;

function fail(why) {
  failed = true;
  say('FAIL: ' + why);
}

fs.writeFileSync('watched', '');
fs.watch('watched', () => noticed && noticed());

// An event that nobody has read when the dump is made is lost: the next one has to come.
function notices() {
  return new Promise((resolve) => {
    const again = setInterval(() => fs.utimesSync('watched', new Date(), new Date()), 500);
    noticed = () => {
      clearInterval(again);
      noticed = null;
      resolve();
    };
    fs.writeFileSync('watched', String(rounds));
  });
}

function child(status) {
  return new Promise((resolve) => {
    spawn('/bin/sh', ['-c', `sleep 0.02; exit ${status}`], { stdio: 'ignore' }).on('exit', (code) => {
      if (code !== status) fail(`a child ended with ${code}, not ${status}`);
      resolve();
    });
  });
}

function hash() {
  return new Promise((resolve) => {
    crypto.pbkdf2('secret', 'salt', 500, 32, 'sha256', (error, key) => {
      if (error || key.toString('hex') !== expected) fail('the thread pool has another result');
      resolve();
    });
  });
}

function pause() {
  const began = process.hrtime.bigint();
  return new Promise((resolve) => {
    setTimeout(() => {
      if (process.hrtime.bigint() - began < 9000000n) fail('a timer fired early');
      resolve();
    }, 10);
  });
}

async function main() {
  while (!fs.existsSync('go')) {
    await Promise.all([notices(), child(rounds % 5), hash(), pause()]);
    rounds++;
    const count = Buffer.alloc(8);
    count.writeBigInt64LE(BigInt(rounds));
    fs.writeSync(beat, count, 0, 8, 0);
    if (rounds === 3) say('ready');
  }
  if (!failed) say('PASS');
  process.exit(failed ? 1 : 0);
}

main().catch((problem) => fail(String(problem)));
