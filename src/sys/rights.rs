//! File descriptors that a message carried (`SCM_RIGHTS`).

/// Closes every descriptor in the control messages of a message that is not delivered to the caller, where they would
/// leak.
///
/// # Safety
/// One `recvmsg` wrote the bytes, and no other code has been given a descriptor in them.
pub unsafe fn close(control: &[u8]) {
    // SAFETY: the caller promises that no other code has the descriptor, so this closes nothing that is in use.
    each(control, |fd| unsafe {
        libc::close(fd);
    });
}

/// Calls `found` with every descriptor in control messages, the last of which may be truncated.
fn each(mut control: &[u8], mut found: impl FnMut(i32)) {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let int =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|int| int.try_into().ok()).map(i32::from_ne_bytes);
    while let Some((length, _)) = control.split_first_chunk() {
        let length = usize::from_ne_bytes(*length).min(control.len());
        let level = int(control, std::mem::offset_of!(libc::cmsghdr, cmsg_level));
        let kind = int(control, std::mem::offset_of!(libc::cmsghdr, cmsg_type));
        let Some(data) = control.get(HEADER..length) else { return };
        if (level, kind) == (Some(libc::SOL_SOCKET), Some(libc::SCM_RIGHTS)) {
            data.chunks_exact(4).filter_map(|fd| int(fd, 0)).for_each(&mut found);
        }
        control = control.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::each;

    fn message(length: usize, kind: i32, data: &[i32]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        for int in [libc::SOL_SOCKET, kind].iter().chain(data) {
            bytes.extend(int.to_ne_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn descriptors_are_found_behind_other_messages_and_in_one_that_is_cut() {
        let mut control = message(16 + 4, libc::SCM_RIGHTS, &[7]);
        control.extend(message(16 + 12, libc::SCM_CREDENTIALS, &[1, 2, 3]));
        control.extend(message(16 + 12, libc::SCM_RIGHTS, &[8, 9]));
        let mut found = Vec::new();
        each(&control, |fd| found.push(fd));
        assert_eq!(found, [7, 8, 9]);
        for end in 0..control.len() {
            let mut cut = Vec::new();
            each(&control[..end], |fd| cut.push(fd));
            assert!([7, 8, 9].starts_with(&cut), "{end}: {cut:?}");
        }
    }

    #[test]
    fn what_is_no_message_ends_them() {
        each(&message(3, libc::SCM_RIGHTS, &[7]), |fd| panic!("{fd}"));
        each(&[0xff; 15], |fd| panic!("{fd}"));
    }
}
