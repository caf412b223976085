//! Names of error numbers.

use std::borrow::Cow;

macro_rules! names {
    ($($name:ident,)*) => {
        const fn known(number: i32) -> Option<&'static str> {
            match number {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

// Those in `errno(3)` that a system call of a current kernel can return.
names! {
    EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN, ENOMEM, EACCES, EFAULT, ENOTBLK,
    EBUSY, EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE, EMFILE, ENOTTY, ETXTBSY, EFBIG, ENOSPC, ESPIPE,
    EROFS, EMLINK, EPIPE, EDOM, ERANGE, EDEADLK, ENAMETOOLONG, ENOLCK, ENOSYS, ENOTEMPTY, ELOOP, ENOMSG, EIDRM,
    ENODATA, ETIME, EREMOTE, ENOLINK, EPROTO, EBADMSG, EOVERFLOW, EUSERS, ENOTSOCK, EDESTADDRREQ, EMSGSIZE,
    EPROTOTYPE, ENOPROTOOPT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EOPNOTSUPP, EPFNOSUPPORT, EAFNOSUPPORT, EADDRINUSE,
    EADDRNOTAVAIL, ENETDOWN, ENETUNREACH, ENETRESET, ECONNABORTED, ECONNRESET, ENOBUFS, EISCONN, ENOTCONN, ESHUTDOWN,
    ETOOMANYREFS, ETIMEDOUT, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EALREADY, EINPROGRESS, ESTALE, EDQUOT, ECANCELED,
    EOWNERDEAD, ENOTRECOVERABLE, EHWPOISON,
}

/// The name of an error number, or the number itself. Includes errors that the kernel uses internally
/// (`<linux/errno.h>`) and converts before a process sees them.
#[must_use]
pub fn name(number: u16) -> Cow<'static, str> {
    let internal = match number {
        512 => Some("ERESTARTSYS"),
        513 => Some("ERESTARTNOINTR"),
        514 => Some("ERESTARTNOHAND"),
        515 => Some("ENOIOCTLCMD"),
        516 => Some("ERESTART_RESTARTBLOCK"),
        524 => Some("ENOTSUPP"),
        529 => Some("EIOCBQUEUED"),
        _ => known(i32::from(number)),
    };
    internal.map_or_else(|| number.to_string().into(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_the_manual() {
        for (number, named) in [(1, "EPERM"), (11, "EAGAIN"), (110, "ETIMEDOUT"), (512, "ERESTARTSYS"), (4095, "4095")]
        {
            assert_eq!(name(number), named);
        }
    }
}
