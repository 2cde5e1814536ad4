# Runs a server ("$@") that must not outlive the tests. Its standard input is a pipe that the test process
# holds open and never writes to: when it closes, for whatever reason, everything here dies and $DIR goes.
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
echo "$server" >"$PID_FILE.new"
mv "$PID_FILE.new" "$PID_FILE"
{
  cat <&3 >/dev/null
  : >"$DIR/closed"
  kill -KILL "$server" 2>/dev/null
  [ -n "$AMIBUS_TEST_KEEP" ] || rm -rf "$DIR"
  kill -KILL 0
} &
wait "$server"
echo "guard: the server ended with status $?" >&2
[ ! -e "$DIR/closed" ] || wait
kill -KILL 0
