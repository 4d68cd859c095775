//! What the operating system knows about this process.

/// Makes writing beyond a file-size limit (`ulimit -f`) an error that can be reported, instead of a signal that kills.
pub fn survive_file_size_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Signals that this process was started to ignore (`nohup`, a shell's `&`) are ignored after `install` as before.
#[cfg(unix)]
pub fn keep_ignored_signals<T>(install: impl FnOnce() -> T) -> T {
    let is_ignored = |signal: &libc::c_int| {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: with no new action, sigaction fills the struct when it returns 0, and only then is it read.
        unsafe {
            libc::sigaction(*signal, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    };
    let mut signals = vec![libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    signals.retain(is_ignored);
    let installed = install();
    for signal in signals {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    installed
}

/// Elsewhere no process is started to ignore signals.
#[cfg(not(unix))]
pub fn keep_ignored_signals<T>(install: impl FnOnce() -> T) -> T {
    install()
}

/// Outside a desktop session, Mesa's layer that sorts Vulkan devices by the session's preference prints an error at every
/// enumeration. There is no preference then: this leaves the layer out.
pub fn leave_out_mesas_device_selection() {
    #[cfg(target_os = "linux")]
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// The command that started this process, to be pasted into a shell.
pub fn command_line() -> String {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // A NUL, which no shell can quote, is in no argument.
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// The most memory that the process ever held, in MiB, where the system tells.
pub fn peak_rss_mib() -> Option<f64> {
    // Not getrusage: its number includes what the process was before exec.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Seconds of CPU time of all threads so far, where the system tells.
#[cfg(unix)]
pub fn cpu_seconds() -> Option<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage fills the struct when it returns 0, and only then is it read.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// Seconds of CPU time of all threads so far, where the system tells.
#[cfg(not(unix))]
pub fn cpu_seconds() -> Option<f64> {
    None
}
